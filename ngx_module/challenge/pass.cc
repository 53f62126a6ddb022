#include "ngx_module/challenge/pass.h"

#include "ngx_module/conf/text.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/request/cookie.h"
#include "ngx_module/request/receipt.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

constexpr char kBetween = '~';
constexpr size_t kMostPasses = 4;

constexpr Cookie kCookie{"__Host-penstock-pass", "Lax"};

// Visits what the request brings as passes until visit(text) says true.
template <class Visit>
bool any_pass(const ngx_http_request_t* r, const Visit& visit) noexcept {
  size_t seen = 0;  // in all lines
  const auto any_of = [&](std::string_view list) noexcept {
    for (; seen < kMostPasses && !list.empty(); ++seen) {
      const size_t end = std::min(list.find(kBetween), list.size());
      if (visit(list.substr(0, end))) {
        return true;
      }
      list.remove_prefix(std::min(end + 1, list.size()));
    }
    return false;
  };
  return any_header(r, "penstock-pass", any_of) || any_cookie(r, kCookie, any_of);
}

// Each zone signs with keys of its own, unless it shares a secret_file= with others.
std::optional<challenge::Pass> read_pass_of_any_zone(const MainConf& main,
                                                     std::string_view text) noexcept {
  for (Zone* zone : main.zones) {
    for (const challenge::Keys& keys : keys_of(*zone)) {
      if (auto pass = challenge::read_pass(keys, text, ngx_time()); pass) {
        return pass;
      }
    }
  }
  return std::nullopt;
}

}  // namespace

limit::Outcome spend(Zone& zone, const challenge::Holder& holder, std::string_view id) noexcept {
  constexpr uint64_t kLongestNs =
      (challenge::kLifeSeconds + challenge::kClockSkewSeconds) * uint64_t{1'000'000'000};
  constexpr uint64_t kMostSolved = 60;
  static const limit::Policy once = limit::make_policy(*limit::make_gcra(1, kLongestNs, 1));
  static const limit::Policy many =
      limit::make_policy(*limit::make_gcra(kMostSolved, kLongestNs, kMostSolved));
  const limit::Secret secret = limit::derive_secret(zone.key_secret, "challenges that are spent");
  const limit::Hash128 who =
      limit::siphash13_128(limit::derive_secret(secret, challenge::text_of(holder.limit)),
                           challenge::text_of(holder.subject));
  limit::Charge charges[] = {{&once, limit::siphash13_128(secret, id), 1}, {&many, who, 1}};
  return limit::charge_all(*zone.table, charges, instant(*zone.table));
}

bool give_pass(ngx_http_request_t* r, const challenge::Keys& keys,
               const challenge::Pass& pass) noexcept {
  const challenge::PassText fresh = challenge::write_pass(keys, pass);
  auto* value = static_cast<char*>(ngx_pnalloc(r->pool, kMostPasses * (sizeof fresh.bytes + 1)));
  if (value == nullptr) {
    return false;
  }
  Text text(value);
  text.raw(fresh.view());
  size_t count = 1;
  any_pass(r, [&](std::string_view other) noexcept {
    const std::string_view so_far(value, static_cast<size_t>(text.at() - value));
    const auto of = read_pass_of_any_zone(*main_conf(r), other);
    if (of && of->holder != pass.holder && so_far.find(other) == std::string_view::npos) {
      text.raw({&kBetween, 1}).raw(other);
      ++count;
    }
    return count == kMostPasses;
  });
  const ngx_str_t passes = str({value, static_cast<size_t>(text.at() - value)});
  const int64_t left_s = pass.issued_s + pass.seconds - ngx_time();
  return push_header(r, "Cache-Control", str("no-store")) != nullptr &&
         push_header(r, "Penstock-Pass", passes) != nullptr &&
         set_cookie(r, kCookie, view(passes), static_cast<uint64_t>(std::max(left_s, int64_t{0})));
}

std::string_view challenge_name(const Limit& limit) noexcept {
  return view(limit.bounds[0].counter->rule->name);
}

std::string_view caller_of(ngx_http_request_t* r, const Limit& limit) noexcept {
  std::string_view who;
  return limit.key.get(r, who) ? who : std::string_view{};
}

challenge::Holder holder_of(const Limit& limit, const challenge::Keys& keys,
                            std::string_view who) noexcept {
  return challenge::make_holder(keys, challenge_name(limit), who);
}

const challenge::Keys* keys_of(const Limit& limit, const challenge::Holder& holder) noexcept {
  for (const challenge::Keys& keys : keys_of(*limit.zone)) {
    if (holder_of(limit, keys, "").limit == holder.limit) {
      return &keys;
    }
  }
  return nullptr;
}

bool has_pass(const ngx_http_request_t* r, const Limit& limit, std::string_view who) noexcept {
  return any_pass(r, [&](std::string_view text) noexcept {
    for (const challenge::Keys& keys : keys_of(*limit.zone)) {
      const auto pass = challenge::read_pass(keys, text, ngx_time());
      if (pass && pass->holder == holder_of(limit, keys, who)) {
        return ngx_time() - pass->issued_s < loc_conf(r)->challenging.pass_s;
      }
    }
    return false;
  });
}

Answered take_answer(ngx_http_request_t* r, const Limit& limit, const challenge::Keys& keys,
                     const challenge::Holder& holder,
                     const challenge::Solution& solution) noexcept {
  bool right = challenge::is_ours(keys, solution, holder, ngx_time()) &&
               challenge::is_solved(keys, solution);
  if (right) {
    const limit::Outcome spent = spend(*limit.zone, solution.holder(), solution.id());
    if (spent == limit::Outcome::table_full) {
      return Answered::kNoRoom;
    }
    right = spent == limit::Outcome::admitted &&
            give_pass(r, keys, challenge::pass_for(solution, loc_conf(r)->challenging.pass_s));
  }
  count_challenge(*limit.bounds[0].counter,
                  right ? ChallengeEvent::kPassed : ChallengeEvent::kFailed);
  return right ? Answered::kRight : Answered::kWrong;
}

}  // namespace penstock
