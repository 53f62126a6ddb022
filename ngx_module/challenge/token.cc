#include "ngx_module/challenge/token.h"

#include "ngx_module/challenge/provider.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

// Of Turnstile's; others do not say how long theirs are.
size_t most_bytes(ProviderKind kind) noexcept {
  return kind == ProviderKind::kTurnstile ? 2048 : 8192;
}

std::string_view away_cookie(const ngx_http_request_t* r) noexcept {
  return is_secure(r) ? "__Host-penstock-away" : "penstock-away";
}

void count(const Limit& limit, ChallengeEvent event) noexcept {
  count_challenge(*limit.bounds[0].counter, event);
}

Answered answered_by(const ngx_http_request_t* r, const TokenCheck& check) noexcept {
  const bool good = check.verdict == wire::Verdict::kGood ||
                    (check.verdict == wire::Verdict::kUnknown &&
                     loc_conf(r)->challenging.provider->on_away == OnAway::kAllow);
  return good                                    ? Answered::kRight
         : check.verdict == wire::Verdict::kBusy ? Answered::kBusy
                                                 : Answered::kWrong;
}

}  // namespace

Answered ask_about(ngx_http_request_t* r, RequestState& state, const Limit& limit,
                   const challenge::Holder& holder, std::string_view token) noexcept {
  const ChallengeProvider& provider = *loc_conf(r)->challenging.provider;
  const limit::Outcome spent = token.size() > most_bytes(provider.kind)
                                   ? limit::Outcome::refused
                                   : spend(*limit.zone, holder, token);
  if (spent != limit::Outcome::admitted) {
    count(limit, ChallengeEvent::kFailed);
    return spent == limit::Outcome::table_full ? Answered::kNoRoom : Answered::kWrong;
  }
  char caller[sizeof holder.limit + sizeof holder.subject];
  Text(caller).raw(challenge::text_of(holder.limit)).raw(challenge::text_of(holder.subject));
  state.check = ask_about_token(r, provider.lines,
                                {.provider = known_provider(provider.kind).name,
                                 .sitekey = view(provider.sitekey),
                                 .token = token,
                                 .caller = {caller, sizeof caller},
                                 .remote_ip = view(r->connection->addr_text)});
  if (state.check == nullptr) {
    return Answered::kWrong;
  }
  state.check->limit = &limit;
  return Answered::kAsked;
}

Answered settle_check(ngx_http_request_t* r, TokenCheck& check, const challenge::Keys& keys,
                      const challenge::Holder& holder) noexcept {
  if (check.settled) {
    return answered_by(r, check);
  }
  check.settled = true;
  ChallengeEvent event = ChallengeEvent::kFailed;
  switch (check.verdict) {
    case wire::Verdict::kGood: {
      challenge::Pass pass{.holder = holder, .issued_s = ngx_time()};
      pass.seconds = loc_conf(r)->challenging.pass_s;
      if (give_pass(r, keys, pass)) {
        event = ChallengeEvent::kPassed;
      } else {
        check.verdict = wire::Verdict::kBad;
      }
      break;
    }
    case wire::Verdict::kBad:
      break;
    case wire::Verdict::kBusy:
      event = ChallengeEvent::kProviderError;
      break;
    default:
      check.verdict = wire::Verdict::kUnknown;
      event = ChallengeEvent::kProviderError;
  }
  count(*check.limit, event);
  return answered_by(r, check);
}

bool note_away(ngx_http_request_t* r, const challenge::Keys& keys,
               const challenge::Holder& holder) noexcept {
  const challenge::PassText text = challenge::write_pass(
      keys, {.holder = holder, .issued_s = ngx_time(), .seconds = challenge::kLifeSeconds},
      challenge::Kind::kAway);
  ngx_str_t name = str(away_cookie(r));
  ngx_str_t value = str(text.view());
  const ngx_str_t cookie =
      print(r->pool, "%V=%V; Path=/; Max-Age=%L; HttpOnly; SameSite=Lax%s", &name, &value,
            challenge::kLifeSeconds, is_secure(r) ? "; Secure" : "");
  return cookie.data != nullptr && push_header(r, "Set-Cookie", cookie) != nullptr;
}

bool found_away(ngx_http_request_t* r, const Limit& limit, std::string_view who) noexcept {
  const RequestState* state = find_state(r);
  if (state != nullptr && state->check != nullptr && state->check->settled &&
      state->check->limit == &limit && state->check->verdict == wire::Verdict::kUnknown) {
    return true;
  }
  return any_cookie(r, away_cookie(r), [&](std::string_view text) noexcept {
    for (const challenge::Keys& keys : keys_of(*limit.zone)) {
      const auto away = challenge::read_pass(keys, text, ngx_time(), challenge::Kind::kAway);
      if (away && away->holder == holder_of(limit, keys, who)) {
        return true;
      }
    }
    return false;
  });
}

bool goes_on_without(ngx_http_request_t* r, const Limit& limit, std::string_view who) noexcept {
  return loc_conf(r)->challenging.provider->on_away == OnAway::kAllow && found_away(r, limit, who);
}

}  // namespace penstock
