// The request headers that ask for more than an answer: a promise, a key, a time, a webhook.
//
// They go to penstockd as they were sent. Here they are found, and their lengths are checked.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/wire/messages.h"

namespace penstock {

struct JobHeaders {
  std::string_view prefer;           // several lines are joined by ", "
  std::string_view idempotency_key;  // Idempotency-Key
  std::string_view delay;            // Penstock-Delay
  std::string_view not_before;       // Penstock-Not-Before
  std::string_view callback;         // Penstock-Callback
  std::string_view label;            // Penstock-Label
  std::string_view start_within;     // Penstock-Start-Within
  std::string_view finish_within;    // Penstock-Finish-Within
  std::string_view cancel_after;     // Cancel-After: means the same
  std::string_view read_timeout;     // X-Stainless-Read-Timeout: likewise, if all comes at once
  std::string_view events;           // Penstock-Events: "queue", or empty
  // Read: in ms; 0: whenever.
  uint64_t start_within_ms = 0;
  uint64_t finish_within_ms = 0;
  uint64_t read_timeout_ms = 0;

  // `waits`: the answer comes as a whole, to who waits for it.
  void put(wire::Submit& submit, bool waits) const noexcept;
  // By when the caller wants it done, in ms from when it came; 0: whenever.
  uint64_t done_within_ms(bool waits) const noexcept;
  // Whether the request may become a job that outlives it.
  bool may_outlive() const noexcept;
  // Whether a promise is asked for, and not an answer.
  bool want_promise() const noexcept;
};

// What a caller is told; empty: nothing is wrong.
struct BadHeader {
  std::string_view detail = {};
  std::string_view name = {};
};

// `found` stays nullptr when there are none. False when memory ran out.
bool find_job_headers(ngx_http_request_t* r, const JobHeaders*& found, BadHeader& bad) noexcept;

// Whether the answer may be there already, or is not wanted now. Then the length of the queue says
// nothing about the request.
bool may_not_wait(ngx_http_request_t* r) noexcept;
// Whether it asks for a promise by Prefer or Penstock-Callback.
bool asks_for_promise(ngx_http_request_t* r) noexcept;

}  // namespace penstock
