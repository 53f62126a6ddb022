#include "worker/ctl/next_step.h"

#include <algorithm>
#include <charconv>

#include "shared/base/clock.h"
#include "shared/base/units.h"

namespace penstock::ctl {
namespace {

constexpr int64_t kMsPerSec = 1000;
constexpr int64_t kMostSeconds = 30;

int64_t back_off_ms(int tries) {
  return std::min(int64_t{1} << std::clamp(tries - 1, 0, 10), kMostSeconds) * kMsPerSec;
}

}  // namespace

NextStep next_step(const Heard& heard, int tries) {
  const int64_t said_ms = heard.retry_after_s * kMsPerSec;
  const int64_t wait_ms = said_ms > 0 ? said_ms : back_off_ms(tries);
  switch (heard.status) {
    case 0:
      return tries < kMostTries ? NextStep{NextStep::kAgain, back_off_ms(tries)}
                                : NextStep{NextStep::kGiveUp};
    case 401:
    case 403:
      return {NextStep::kPutOff};
    case 202:
      return {NextStep::kPoll, std::max(said_ms, kMsPerSec)};
    case 429:
    case 503:
      return {NextStep::kAgain, wait_ms, true};
    case 409:  // the same request is being worked on
      return said_ms > 0 ? NextStep{NextStep::kAgain, wait_ms} : NextStep{};
    case 502:
    case 504:
      return heard.of_a_job || tries >= kMostTries ? NextStep{}
                                                   : NextStep{NextStep::kAgain, wait_ms};
    default:
      return {};
  }
}

std::optional<int64_t> parse_rate_ns(std::string_view text) {
  const size_t slash = std::min(text.find('/'), text.size());
  const auto duration_ns = parse_duration_ns(text.substr(std::min(slash + 1, text.size())));
  int64_t count = 0;
  const char* const end = text.data() + slash;
  const bool whole = slash > 0 && std::from_chars(text.data(), end, count).ptr == end;
  if (!whole || count < 1 || !duration_ns || *duration_ns < 1) {
    return std::nullopt;
  }
  return std::max<int64_t>(*duration_ns / count, 1);
}

}  // namespace penstock::ctl
