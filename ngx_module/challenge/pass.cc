#include "ngx_module/challenge/pass.h"

#include "ngx_module/conf/text.h"
#include "ngx_module/request/headers.h"
#include "ngx_module/request/receipt.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

constexpr char kBetween = '~';
constexpr size_t kMostPasses = 4;

std::string_view cookie_name(const ngx_http_request_t* r) noexcept {
  return is_secure(r) ? "__Host-penstock-pass" : "penstock-pass";
}

// Visits the good passes of a list until visit(text, pass) says true.
template <class Visit>
bool any_pass(const challenge::Keys& keys, std::string_view list, const Visit& visit) noexcept {
  for (size_t i = 0; i < kMostPasses && !list.empty(); ++i) {
    const size_t end = std::min(list.find(kBetween), list.size());
    const std::string_view text = list.substr(0, end);
    list.remove_prefix(std::min(end + 1, list.size()));
    if (const auto pass = challenge::read_pass(keys, text, ngx_time());
        pass && visit(text, *pass)) {
      return true;
    }
  }
  return false;
}

template <class Visit>
bool any_pass_of(const ngx_http_request_t* r, const challenge::Keys& keys,
                 const Visit& visit) noexcept {
  return any_pass(keys, find_header(r, "penstock-pass"), visit) ||
         any_cookie(r, cookie_name(r),
                    [&](std::string_view list) noexcept { return any_pass(keys, list, visit); });
}

// Each challenge is answered once: its id is a key of its own in the zone, until it would have
// ended anyway. Only what we have signed gets there.
limit::Outcome spend(Zone& zone, std::string_view id) noexcept {
  constexpr uint64_t kLongestNs =
      (challenge::kLifeSeconds + challenge::kClockSkewSeconds) * uint64_t{1'000'000'000};
  static const limit::Policy once = limit::make_policy(*limit::make_gcra(1, kLongestNs, 1));
  const limit::Secret secret = limit::derive_secret(zone.key_secret, "challenges that are spent");
  limit::Charge charge[] = {{&once, limit::siphash13_128(secret, id), 1}};
  return limit::charge_all(*zone.table, charge, instant(*zone.table));
}

// The new pass, and those that came with the request and are for other limits.
bool give_pass(ngx_http_request_t* r, const challenge::Keys& keys,
               const challenge::Pass& pass) noexcept {
  const challenge::PassText fresh = challenge::write_pass(keys, pass);
  constexpr std::string_view kTail = "; HttpOnly; SameSite=Lax; Secure";
  constexpr std::string_view kAge = "; Path=/; Max-Age=";
  const std::string_view name = cookie_name(r);
  auto* memory = static_cast<char*>(
      ngx_pnalloc(r->pool, name.size() + 1 + kMostPasses * (sizeof fresh.bytes + 1) + kAge.size() +
                               Text::kMaxDigits + kTail.size()));
  if (memory == nullptr) {
    return false;
  }
  Text text(memory);
  text.raw(name).raw("=");
  const char* const value = text.at();
  text.raw(fresh.view());
  size_t count = 1;
  any_pass_of(r, keys, [&](std::string_view other, const challenge::Pass& of) noexcept {
    if (count < kMostPasses && of.holder.limit != pass.holder.limit) {
      text.raw({&kBetween, 1}).raw(other);
      ++count;
    }
    return false;
  });
  const ngx_str_t passes = str({value, static_cast<size_t>(text.at() - value)});
  const int64_t left_s = pass.issued_s + pass.seconds - ngx_time();
  text.raw(kAge).number(static_cast<uint64_t>(std::max(left_s, int64_t{0})));
  text.raw(is_secure(r) ? kTail : kTail.substr(0, kTail.rfind(';')));
  return push_header(r, "Penstock-Pass", passes) != nullptr &&
         push_header(r, "Set-Cookie", str({memory, static_cast<size_t>(text.at() - memory)})) !=
             nullptr;
}

}  // namespace

std::string_view challenge_name(const Limit& limit) noexcept {
  return view(limit.bounds[0].counter->rule->name);
}

bool holder_of(ngx_http_request_t* r, const Limit& limit, challenge::Holder& holder) noexcept {
  std::string_view who;
  if (!limit.key.get(r, who) || who.empty()) {
    return false;
  }
  holder = challenge::make_holder(limit.zone->challenge_keys, challenge_name(limit), who);
  return true;
}

bool has_pass(const ngx_http_request_t* r, const Limit& limit,
              const challenge::Holder& holder) noexcept {
  return any_pass_of(r, limit.zone->challenge_keys,
                     [&](std::string_view, const challenge::Pass& pass) noexcept {
                       return pass.holder == holder;
                     });
}

Answered take_answer(ngx_http_request_t* r, const Limit& limit, const challenge::Holder& holder,
                     const challenge::Solution& solution) noexcept {
  const challenge::Keys& keys = limit.zone->challenge_keys;
  bool right = challenge::is_ours(keys, solution, holder, ngx_time());
  if (right) {
    switch (spend(*limit.zone, solution.id())) {
      case limit::Outcome::admitted:
        right = challenge::is_solved(keys, solution);
        break;
      case limit::Outcome::table_full:
        return Answered::kNoRoom;
      default:
        right = false;
    }
  }
  right =
      right && give_pass(r, keys, challenge::pass_for(solution, loc_conf(r)->challenging.pass_s));
  count_challenge(*limit.bounds[0].counter,
                  right ? ChallengeEvent::kPassed : ChallengeEvent::kFailed);
  return right ? Answered::kRight : Answered::kWrong;
}

}  // namespace penstock
