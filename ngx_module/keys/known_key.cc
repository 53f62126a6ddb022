#include "ngx_module/keys/known_key.h"

#include "ngx_module/keys/issued_keys.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/request/cookie.h"
#include "ngx_module/request/session.h"
#include "shared/challenge/pass.h"

namespace penstock {
namespace {

constexpr size_t kMostCookies = 4;  // of one name, that are looked at
constexpr size_t kBeginBytes = sizeof KnownKey::digest_begin;
// No limit has such a name, so no challenge is solved for it.
constexpr std::string_view kHolder = "key that has signed in";

constexpr Cookie kCookie{"__Host-penstock-key", "Strict"};

// The key in an Authorization header (RFC 6750, 2.1); empty: it is something else.
std::string_view bearer_of(std::string_view value) noexcept {
  constexpr std::string_view kScheme = "Bearer ";
  if (value.size() <= kScheme.size() ||
      ngx_strncasecmp(str(value).data, str(kScheme).data, kScheme.size()) != 0) {
    return {};
  }
  value.remove_prefix(std::min(value.find_first_not_of(' ', kScheme.size()), value.size()));
  return value;
}

std::string_view key_in_headers(const ngx_http_request_t* r) noexcept {
  if (r->headers_in.authorization != nullptr) {
    if (const auto key = bearer_of(view(r->headers_in.authorization->value)); !key.empty()) {
      return key;
    }
  }
  const std::string_view key = find_header(r, "x-api-key");
  return key.empty() ? find_header(r, "api-key") : key;
}

challenge::Holder holder_of(const challenge::Keys& keys, std::span<const uint8_t> begin) noexcept {
  challenge::Holder holder = challenge::make_holder(keys, kHolder, "");
  std::copy_n(begin.begin(), holder.subject.size(), holder.subject.begin());
  return holder;
}

// The beginning of the digest that a cookie of ours names.
bool read_cookie(Zone& zone, std::string_view text,
                 std::array<uint8_t, kBeginBytes>& begin) noexcept {
  for (const challenge::Keys& keys : keys_of(zone)) {
    const auto pass = challenge::read_pass(keys, text, ngx_time());
    if (pass && pass->holder.limit == holder_of(keys, begin).limit) {
      const auto& subject = pass->holder.subject;
      std::copy(pass->id.begin(), pass->id.end(),
                std::copy(subject.begin(), subject.end(), begin.begin()));
      return true;
    }
  }
  return false;
}

// False when memory ran out.
bool tell(ngx_http_request_t* r, const keys::Key* found, KnownKey& known) noexcept {
  known.state = KeyState::kUnknown;
  if (found == nullptr) {
    return true;
  }
  challenge::write_hex(std::span(found->digest).first(keys::kIdBytes / 2), known.id.data());
  known.state = KeyState::kExpired;
  if (found->has_ended(ngx_time())) {
    return true;
  }
  known.state = KeyState::kKnown;
  known.ends_s = found->ends_s;
  std::copy_n(found->digest.begin(), kBeginBytes, known.digest_begin.begin());
  const ngx_str_t owner = copy(r->pool, found->owner);  // the file may be read anew
  const ngx_str_t tier = copy(r->pool, found->tier);
  known.owner = view(owner);
  known.tier = view(tier);
  return owner.data != nullptr && tier.data != nullptr;
}

bool find(ngx_http_request_t* r, const MainConf& main, KnownKey& known) noexcept {
  if (const std::string_view key = key_in_headers(r); !key.empty()) {
    return tell(r,
                key.size() > keys::kMostKeyBytes
                    ? nullptr
                    : main.keys->find(challenge::sha256(key), r->connection->log),
                known);
  }
  std::array<uint8_t, kBeginBytes> begin{};
  size_t cookies = 0;
  if (main.sign_in_zone == nullptr || !is_from_here(r) ||
      !any_cookie(r, kCookie, [&](std::string_view text) noexcept {
        return ++cookies <= kMostCookies && read_cookie(*main.sign_in_zone, text, begin);
      })) {
    return true;
  }
  known.by_cookie = true;
  return tell(r, main.keys->find(begin, r->connection->log), known);
}

}  // namespace

const KnownKey* known_key(ngx_http_request_t* r) noexcept {
  const MainConf& main = *main_conf(r);
  RequestState* state = main.keys == nullptr ? nullptr : state_of(r->main);
  if (state == nullptr || state->caller_key != nullptr) {
    return state == nullptr ? nullptr : state->caller_key;
  }
  auto* known = make<KnownKey>(r->pool);
  if (known == nullptr || !find(r->main, main, *known)) {
    return nullptr;
  }
  state->caller_key = known;
  return known;
}

bool sign_in(ngx_http_request_t* r, const KnownKey& key, int64_t seconds) noexcept {
  const challenge::Keys& keys = keys_of(*main_conf(r)->sign_in_zone).signing();
  challenge::Pass pass;
  pass.holder = holder_of(keys, key.digest_begin);
  std::copy_n(key.digest_begin.begin() + static_cast<ptrdiff_t>(pass.holder.subject.size()),
              pass.id.size(), pass.id.begin());
  pass.issued_s = ngx_time();
  pass.seconds = key.ends_s == 0 ? seconds : std::min(seconds, key.ends_s - ngx_time());
  return pass.seconds > 0 && set_cookie(r, kCookie, challenge::write_pass(keys, pass).view(),
                                        static_cast<uint64_t>(pass.seconds));
}

bool sign_out(ngx_http_request_t* r) noexcept { return set_cookie(r, kCookie, "", 0); }

ngx_int_t require_key(ngx_http_request_t* r) noexcept {
  if (loc_conf(r)->require_key != 1) {
    return NGX_DECLINED;
  }
  const KnownKey* const key = known_key(r);
  if (key == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (key->state == KeyState::kKnown) {
    return NGX_OK;
  }
  r->headers_out.www_authenticate = push_header(r, "WWW-Authenticate", str("Bearer"));
  return r->headers_out.www_authenticate == nullptr ? NGX_HTTP_INTERNAL_SERVER_ERROR
                                                    : NGX_HTTP_UNAUTHORIZED;
}

}  // namespace penstock
