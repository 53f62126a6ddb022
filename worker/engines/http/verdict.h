// What becomes of a job whose server has failed it: the one place where that is decided.
//
//     told      4xx and 501 are the caller's answer, as they are
//     returned  429, 503, 529, no connection, no first byte in time: there is no room. The job
//               goes back to its place, no attempt is burned, and the url rests
//     attempt   any other way to fail: the queue's settings say whether it is tried again
//     over      nothing would cure it: a redirect, an answer that is too large
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "worker/engines/http/told_error.h"
#include "worker/pool/log.h"

namespace penstock::http_engine {

enum class Fate : uint8_t { kTold, kReturned, kAttempt, kOver };

struct Verdict {
  Fate fate = Fate::kAttempt;
  int status = 502;  // kTold: with which; else the failure's
  LogLevel level = LogLevel::kWarn;
  bool out = false;                // kReturned, kAttempt: what is behind the url is not there
  std::optional<int64_t> rest_ns;  // kReturned: as the server asks; nothing: our own back-off
  bool quota = false;              // kReturned: for want of money
};

// Judges by the status of an answer, or by the one that an error in a 200 amounts to.
// `retry_after_ns` is what read_retry_after() says. REQUIRES: status is no 2xx.
Verdict verdict_of(int status, const std::optional<ToldError>& error,
                   std::optional<int64_t> retry_after_ns);

}  // namespace penstock::http_engine
