#include "worker/queue/jobs/job_options.h"

#include <algorithm>

#include "shared/base/clock.h"
#include "shared/base/utf8.h"
#include "shared/http/http_date.h"
#include "shared/http/idempotency_key.h"
#include "shared/http/prefer.h"
#include "shared/http/query.h"

namespace penstock::queue {
namespace {

constexpr int64_t kMsPerSec = 1000;
constexpr int64_t kLatestMs = int64_t{10} * 365 * 86'400 * kMsPerSec;  // from now
constexpr uint32_t kMaxWaitSeconds = 3600;
constexpr size_t kMaxLabelBytes = 512;

std::optional<BadOption> read_schedule(const wire::Submit& submit, int64_t now_ms,
                                       JobOptions& options) {
  if (!submit.delay.empty() && !submit.not_before.empty()) {
    return BadOption{"Penstock-Delay",
                     "Penstock-Delay and Penstock-Not-Before say the same; send one of them."};
  }
  if (!submit.delay.empty()) {
    const auto seconds = http::parse_delay_seconds(submit.delay);
    if (!seconds) {
      return BadOption{"Penstock-Delay",
                       "Penstock-Delay is whole seconds, as in 3600, ten years at most."};
    }
    options.not_before_ms = *seconds == 0 ? 0 : now_ms + *seconds * kMsPerSec;
  }
  if (!submit.not_before.empty()) {
    const auto seconds = http::parse_http_date(submit.not_before);
    if (!seconds || *seconds * kMsPerSec - now_ms > kLatestMs) {
      return BadOption{"Penstock-Not-Before",
                       "Penstock-Not-Before is an HTTP date within ten years, as in "
                       "Sun, 06 Nov 2033 08:49:37 GMT."};
    }
    options.not_before_ms = *seconds * kMsPerSec > now_ms ? *seconds * kMsPerSec : 0;
    options.by_date = true;
  }
  options.async = options.async || !submit.delay.empty() || !submit.not_before.empty();
  return std::nullopt;
}

}  // namespace

std::optional<BadOption> read_options(const wire::Submit& submit, int64_t now_ms,
                                      JobOptions& options) {
  if (!submit.prefer.empty()) {
    const http::Prefer prefer = http::parse_prefer(submit.prefer);
    options.async = prefer.respond_async;
    options.wait_ns =
        prefer.respond_async ? std::min(prefer.wait_s.value_or(0), kMaxWaitSeconds) * kNsPerSec : 0;
  }
  if (!submit.idempotency_key.empty()) {
    auto key = http::parse_idempotency_key(submit.idempotency_key);
    if (!key) {
      return BadOption{"Idempotency-Key", key.error().message};
    }
    options.key = *std::move(key);
  }
  auto label = http::decode_percent(submit.label);
  if (!label || label->size() > kMaxLabelBytes ||
      utf8_first_invalid(*label) != std::string_view::npos) {
    return BadOption{"Penstock-Label",
                     "Penstock-Label is at most 512 bytes of UTF-8, percent-encoded."};
  }
  options.label = *std::move(label);
  options.callback = submit.callback;
  options.async = options.async || !submit.callback.empty();
  return read_schedule(submit, now_ms, options);
}

}  // namespace penstock::queue
