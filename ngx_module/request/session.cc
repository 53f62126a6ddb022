#include "ngx_module/request/session.h"

#include <sys/random.h>

#include <algorithm>

#include "ngx_module/conf/text.h"
#include "ngx_module/request/cookie.h"

namespace penstock {
namespace {

constexpr std::string_view kOwner = "session:";
constexpr size_t kRandomBytes = 16;
constexpr size_t kTextBytes = 22;  // the same in base64url

constexpr Cookie kCookie{"__Host-penstock-session", "Lax"};
constexpr uint64_t kSeconds = 30 * 86'400;

bool is_text(std::string_view value) noexcept {
  return value.size() == kTextBytes && std::all_of(value.begin(), value.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

// The first cookie of ours that can be one.
std::string_view find_session(const ngx_http_request_t* r) noexcept {
  std::string_view found;
  any_cookie(r, kCookie, [&](std::string_view value) noexcept {
    found = is_text(value) ? value : std::string_view{};
    return !found.empty();
  });
  return found;
}

bool is_read(const ngx_http_request_t* r) noexcept {
  return (r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) != 0;
}

}  // namespace

// https://fetch.spec.whatwg.org/#origin-header; old browsers and plain http have no Sec-Fetch-Site.
bool is_from_here(const ngx_http_request_t* r) noexcept {
  if (const std::string_view site = find_header(r, "sec-fetch-site"); !site.empty()) {
    return site == "same-origin" || (site == "none" && is_read(r));
  }
  const std::string_view origin = find_header(r, "origin");
  return origin.empty() ? is_read(r) : is_own_origin(r, origin);
}

std::string_view session_of(ngx_http_request_t* r) noexcept {
  const std::string_view text = find_session(r);
  if (text.empty() || !is_from_here(r)) {
    return {};
  }
  auto* owner = static_cast<char*>(ngx_pnalloc(r->pool, kOwner.size() + text.size()));
  if (owner == nullptr) {
    return {};
  }
  Text(owner).raw(kOwner).raw(text);
  return {owner, kOwner.size() + text.size()};
}

bool renew_session(ngx_http_request_t* r) noexcept {
  u_char random[kRandomBytes];
  u_char fresh[kTextBytes + 2];
  std::string_view text = find_session(r);
  if (text.empty()) {
    if (getrandom(random, sizeof random, 0) != sizeof random) {
      return false;
    }
    ngx_str_t raw{sizeof random, random};
    ngx_str_t encoded{0, fresh};
    ngx_encode_base64url(&encoded, &raw);
    text = view(encoded);
  }
  return set_cookie(r, kCookie, text, kSeconds);
}

}  // namespace penstock
