#include "ngx_module/challenge/tell_challenge.h"

#include <sys/random.h>

#include "ngx_module/challenge/pass.h"
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

// Its words are put in by ui/challenge.js, in the reader's language; what it needs is in it as
// data, which is no script for a browser.
constexpr std::string_view kPage[] = {
    R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Penstock</title>
<link rel="icon" href="/ui/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/ui/style.css">
<script src="/ui/theme.js"></script>
<script id="challenge" type="application/json">{"retry_after":)",
    R"(,"challenge":)",
    R"(}</script>
<script type="module" src="/ui/challenge.js"></script>
</head>
<body>
<main class="alone">
<section class="card" aria-labelledby="h-check">
<h1 id="h-check" data-word="check.title">A short check</h1>
<p id="check-say" role="status"></p>
<progress id="check-bar" max="1" value="0" aria-labelledby="h-check" hidden></progress>
<p class="go"><button type="button" id="check-go" class="main" data-word="check.go">Go on</button></p>
<noscript><p>This check needs JavaScript. Without it you can try again in )",
    R"( seconds.</p></noscript>
</section>
</main>
</body>
</html>
)"};

ngx_str_t write_page(ngx_pool_t* pool, int64_t retry_after_s, std::string_view challenge) noexcept {
  size_t size = 2 * Text::kMaxDigits + challenge.size();
  for (const std::string_view piece : kPage) {
    size += piece.size();
  }
  auto* memory = static_cast<char*>(ngx_pnalloc(pool, size));
  if (memory == nullptr) {
    return {0, nullptr};
  }
  const auto seconds = static_cast<uint64_t>(retry_after_s);
  const char* const end = Text(memory)
                              .raw(kPage[0])
                              .number(seconds)
                              .raw(kPage[1])
                              .raw(challenge)
                              .raw(kPage[2])
                              .number(seconds)
                              .raw(kPage[3])
                              .at();
  return str({memory, static_cast<size_t>(end - memory)});
}

bool wants_page(const ngx_http_request_t* r) noexcept {
  return find_header(r, "accept").find("text/html") != std::string_view::npos;
}

}  // namespace

ngx_str_t tell_challenge(ngx_http_request_t* r, const RequestState& state, const Limit& limit,
                         std::string_view violated, std::string_view& type) noexcept {
  challenge::ChallengeText challenge;
  const bool page = wants_page(r);
  if (push_header(r, "Cache-Control", str("no-store")) == nullptr ||
      push_header(r, "Vary", str("Accept, Cookie")) == nullptr || (page && !push_page_policy(r)) ||
      !issue(r, limit, challenge)) {
    return {0, nullptr};
  }
  if (page) {
    type = "text/html; charset=utf-8";
    return write_page(r->pool, state.retry_after_s, challenge.view());
  }
  ngx_str_t sentence = limit.bounds[0].counter->rule->sentence;
  const ngx_str_t detail =
      print(r->pool,
            "%V Send what solves the challenge as Penstock-Solution to go on now, or try again in "
            "%L s.",
            &sentence, state.retry_after_s);
  return render_problem(r->pool, {.status = NGX_HTTP_FORBIDDEN,
                                  .detail = view(detail),
                                  .code = "challenge_required",
                                  .retry_after_s = state.retry_after_s,
                                  .violated_policies = violated,
                                  .challenge = challenge.view(),
                                  .docs = view(main_conf(r)->docs)});
}

}  // namespace penstock
