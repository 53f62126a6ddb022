#include "ngx_module/challenge/challenge_page.h"

#include <initializer_list>

#include "ngx_module/challenge/provider.h"
#include "ngx_module/conf/text.h"

namespace penstock {
namespace {

constexpr std::string_view kHead = R"(<!DOCTYPE html>
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
<script id="challenge" type="application/json">{"retry_after":)";

constexpr std::string_view kCard = R"(</head>
<body>
<main class="alone">
<section class="card" aria-labelledby="h-check">
<h1 id="h-check" data-word="check.title">A short check</h1>
<p id="check-say" role="status"></p>
)";

constexpr std::string_view kNoScript =
    R"(<noscript><p>This check needs JavaScript. Without it you can try again in )";

constexpr std::string_view kFoot = R"( seconds.</p></noscript>
</section>
</main>
</body>
</html>
)";

ngx_str_t join(ngx_pool_t* pool, std::initializer_list<std::string_view> pieces) noexcept {
  size_t size = 0;
  for (const std::string_view piece : pieces) {
    size += piece.size();
  }
  auto* memory = static_cast<char*>(ngx_pnalloc(pool, size));
  if (memory == nullptr) {
    return {0, nullptr};
  }
  Text text(memory);
  for (const std::string_view piece : pieces) {
    text.raw(piece);
  }
  return str({memory, size});
}

struct Digits {
  char text[Text::kMaxDigits];
  size_t size;

  explicit Digits(int64_t number) noexcept
      : size(static_cast<size_t>(Text(text).number(static_cast<uint64_t>(ngx_max(number, 0))).at() -
                                 text)) {}
  std::string_view view() const noexcept { return {text, size}; }
};

}  // namespace

ngx_str_t write_page(ngx_pool_t* pool, int64_t retry_after_s, std::string_view challenge) noexcept {
  const Digits seconds(retry_after_s);
  return join(
      pool,
      {kHead, seconds.view(), ",\"challenge\":", challenge, R"(}</script>
<script type="module" src="/ui/challenge.js"></script>
)",
       kCard,
       R"(<progress id="check-bar" max="1" value="0" aria-labelledby="h-check" hidden></progress>
<p class="go"><button type="button" id="check-go" class="main" data-word="check.go">Go on</button></p>
)",
       kNoScript, seconds.view(), kFoot});
}

// reCAPTCHA 3 has no widget but the button that sends the form.
ngx_str_t write_page(ngx_pool_t* pool, int64_t retry_after_s, const ChallengeProvider& provider,
                     std::string_view ticket) noexcept {
  constexpr std::string_view kBegin[] = {R"(<div class=")",
                                         R"(<p class="go"><button id="check-go" class="main )"};
  constexpr std::string_view kEnd[] = {
      R"(></div>
<p class="go"><button id="check-go" class="main" data-word="check.go">Go on</button></p>
)",
      R"( data-word="check.go">Go on</button></p>
)"};
  const KnownProvider& known = known_provider(provider.kind);
  const Digits seconds(retry_after_s);
  const size_t by_button = provider.kind == ProviderKind::kRecaptcha3 ? 1 : 0;
  return join(pool, {kHead,
                     seconds.view(),
                     R"(,"field":")",
                     known.field,
                     R"("}</script>
<script type="module" src="/ui/provider.js"></script>
<script src=")",
                     known.script,
                     R"(" async defer></script>
)",
                     kCard,
                     R"(<form id="check-form" method="post" action="/challenge">
<input type="hidden" name="to" value="/">
<input type="hidden" name="ticket" value=")",
                     ticket,
                     "\">\n",
                     kBegin[by_button],
                     known.widget,
                     R"(" data-sitekey=")",
                     view(provider.sitekey),
                     provider.action.len == 0 ? "" : R"(" data-action=")",
                     view(provider.action),
                     R"(" data-callback="penstockSolved")",
                     kEnd[by_button],
                     "</form>\n",
                     kNoScript,
                     seconds.view(),
                     kFoot});
}

}  // namespace penstock
