// JobOptions: what the headers of a request ask for, beyond its answer.
//
// Prefer (RFC 7240), Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), Penstock-Delay,
// Penstock-Not-Before, Penstock-Callback and Penstock-Label (CONTRACT, section 4). A caller that
// schedules a job or names a callback does not wait for the answer, whether it says so or not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "shared/wire/messages.h"

namespace penstock::queue {

struct JobOptions {
  bool async = false;         // wants a promise, not the answer
  int64_t wait_ns = 0;        // but the answer, if it is there that soon
  std::string key;            // Idempotency-Key; empty: none
  int64_t not_before_ms = 0;  // since 1970; 0: at once
  bool by_date = false;       // and that is what was asked for, not how long to wait
  std::string_view callback;  // URL, as in the request
  std::string label;          // its owner's words for it, decoded
};

struct BadOption {
  std::string_view header;
  std::string message;
};

// Reads them; says what is wrong with one.
std::optional<BadOption> read_options(const wire::Submit& submit, int64_t now_ms,
                                      JobOptions& options);

}  // namespace penstock::queue
