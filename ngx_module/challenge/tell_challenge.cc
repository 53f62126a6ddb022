#include "ngx_module/challenge/tell_challenge.h"

#include <sys/random.h>

#include "ngx_module/challenge/challenge_page.h"
#include "ngx_module/challenge/provider.h"
#include "ngx_module/challenge/token.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/reply/page_policy.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

// The limit's own difficulty, and more while many are solved.
int level_of(const MainConf& main, const Limit& limit, const Challenging& challenging) noexcept {
  const Counter& counter = *limit.bounds[0].counter;
  return std::min(static_cast<int>(challenging.level) +
                      counter.challenged.extra(challenges_passed(main, counter),
                                               static_cast<int64_t>(ngx_current_msec / 1000)),
                  challenge::kLevels);
}

// A key is derived for each that is issued, as long as that is no burden.
challenge::Format format_of(const ngx_http_request_t* r, const Challenging& challenging) noexcept {
  static challenge::Budget derivations;
  const bool asked =
      challenging.format == Challenging::kFormatBySecurity
          ? is_secure(r)
          : static_cast<challenge::Format>(challenging.format) == challenge::Format::kPbkdf2;
  return !asked ? challenge::Format::kSha256
         : derivations.take(static_cast<int64_t>(ngx_current_msec))
             ? challenge::Format::kPbkdf2
             : challenge::Format::kPbkdf2Prefix;
}

bool issue(ngx_http_request_t* r, const Limit& limit, challenge::ChallengeText& text) noexcept {
  const Challenging& challenging = loc_conf(r)->challenging;
  const challenge::Keys& keys = keys_of(*limit.zone).signing();
  const std::string_view who = caller_of(r, limit);
  challenge::Random random;
  if (who.empty() ||
      getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return false;
  }
  text = challenge::write_challenge(keys, format_of(r, challenging),
                                    level_of(*main_conf(r), limit, challenging),
                                    holder_of(limit, keys, who), random, ngx_time());
  count_challenge(*limit.bounds[0].counter, ChallengeEvent::kIssued);
  return true;
}

bool wants_page(const ngx_http_request_t* r) noexcept {
  return find_header(r, "accept").find("text/html") != std::string_view::npos;
}

// For a page, whom it was for; for a program, which widget to bring the answer of.
bool issue_of(ngx_http_request_t* r, const Limit& limit, const ChallengeProvider& provider,
              challenge::PassText& ticket, ngx_str_t& json) noexcept {
  const challenge::Keys& keys = keys_of(*limit.zone).signing();
  const std::string_view who = caller_of(r, limit);
  ngx_str_t name = str(known_provider(provider.kind).name);
  ngx_str_t sitekey = provider.sitekey;
  ngx_str_t action = provider.action;
  json = print(r->pool, "{\"kind\":\"%V\",\"sitekey\":\"%V\"%s%V%s}", &name, &sitekey,
               action.len == 0 ? "" : ",\"action\":\"", &action, action.len == 0 ? "" : "\"");
  if (who.empty() || json.data == nullptr) {
    return false;
  }
  ticket = challenge::write_pass(
      keys,
      {.holder = holder_of(limit, keys, who), .issued_s = ngx_time(), .seconds = kTicketSeconds},
      challenge::Kind::kTicket);
  count_challenge(*limit.bounds[0].counter, ChallengeEvent::kIssued);
  return true;
}

// Whose challenge it is now; nullptr: our own.
const ChallengeProvider* provider_for(ngx_http_request_t* r, const Limit& limit) noexcept {
  const ChallengeProvider* const provider = loc_conf(r)->challenging.provider;
  return provider != nullptr && provider->on_away == OnAway::kPow &&
                 found_away(r, limit, caller_of(r, limit))
             ? nullptr
             : provider;
}

}  // namespace

ngx_str_t tell_challenge(ngx_http_request_t* r, const RequestState& state, const Limit& limit,
                         std::string_view violated, std::string_view& type) noexcept {
  challenge::ChallengeText challenge;
  challenge::PassText ticket;
  ngx_str_t widget{};
  const bool page = wants_page(r);
  const ChallengeProvider* const provider = provider_for(r, limit);
  if (push_header(r, "Cache-Control", str("no-store")) == nullptr ||
      push_header(r, "Vary", str("Accept, Cookie")) == nullptr ||
      (page && !push_page_policy(
                   r, provider == nullptr ? kOwnPolicy : known_provider(provider->kind).policy)) ||
      !(provider == nullptr ? issue(r, limit, challenge)
                            : issue_of(r, limit, *provider, ticket, widget))) {
    return {0, nullptr};
  }
  if (page) {
    type = "text/html; charset=utf-8";
    return provider == nullptr ? write_page(r->pool, state.retry_after_s, challenge.view())
                               : write_page(r->pool, state.retry_after_s, *provider, ticket.view());
  }
  ngx_str_t sentence = limit.bounds[0].counter->rule->sentence;
  const ngx_str_t detail =
      print(r->pool,
            "%V Send what solves the challenge as Penstock-Solution to go on now, or try again in "
            "%L s.",
            &sentence, state.retry_after_s);
  return render_problem(r->pool,
                        {.status = NGX_HTTP_FORBIDDEN,
                         .detail = view(detail),
                         .code = "challenge_required",
                         .retry_after_s = state.retry_after_s,
                         .violated_policies = violated,
                         .challenge = provider == nullptr ? challenge.view() : view(widget),
                         .docs = view(main_conf(r)->docs)});
}

}  // namespace penstock
