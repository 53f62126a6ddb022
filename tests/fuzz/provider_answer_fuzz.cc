// What a provider of challenges answers, or whoever poses as one.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "worker/queue/challenges/provider_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  constexpr int64_t kNowS = 1'700'000'000;
  const queue::ProviderConfig provider{
      .name = "recaptcha", .hostnames = {"example.com"}, .action = "enter", .least_score = 0.5};
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto judged = queue::judge_answer(provider, 200, body, kNowS);
  // A yes is one of a whole object, by an answer that is one.
  const bool is_good = judged.verdict == wire::Verdict::kGood;
  if (is_good &&
      (body.find('{') == body.npos || body.find('}') == body.npos ||
       queue::judge_answer(provider, 200, body, kNowS + 4000).verdict == wire::Verdict::kGood)) {
    std::abort();
  }
  if (is_good != judged.reason.empty() || judged.reason.size() > 400 ||
      queue::judge_answer(provider, 500, body, kNowS).verdict != wire::Verdict::kUnknown) {
    std::abort();
  }
  return 0;
}
