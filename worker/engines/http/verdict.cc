#include "worker/engines/http/verdict.h"

namespace penstock::http_engine {

Verdict verdict_of(int status, const std::optional<ToldError>& error,
                   std::optional<int64_t> retry_after_ns) {
  if (error && error->out_of_quota() && (status == 429 || status >= 500 || status == 402)) {
    return {.fate = Fate::kReturned, .level = LogLevel::kError, .out = true, .quota = true};
  }
  if (status == 429 || status == 503 || status == 529) {
    const bool usual = status == 429 || retry_after_ns.has_value();
    return {.fate = Fate::kReturned,
            .level = usual ? LogLevel::kInfo : LogLevel::kWarn,
            .rest_ns = retry_after_ns};
  }
  if (status >= 300 && status < 400) {
    return {.fate = Fate::kOver, .level = LogLevel::kError};
  }
  if ((status >= 400 && status < 500) || status == 501) {
    const bool ours = status == 401 || status == 403 || status == 501;  // the operator's to mend
    return {
        .fate = Fate::kTold, .status = status, .level = ours ? LogLevel::kWarn : LogLevel::kInfo};
  }
  return {.fate = Fate::kAttempt};
}

}  // namespace penstock::http_engine
