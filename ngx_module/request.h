// What the module knows of one request while it lives.
#pragma once

#include "ngx_module/answer_stream.h"
#include "ngx_module/conf.h"
#include "shared/http/model_field.h"

namespace penstock {

enum class Verdict : uint8_t { kNone, kPassed, kRejected, kBusy };

// What one counter was charged, as far as giving it back needs it.
struct Paid {
  const limit::GcraPolicy* policy;
  limit::Hash128 hash;
  uint64_t state;
};

struct RequestState {
  const ngx_http_request_t* request = nullptr;  // whose it is: subrequests share the pool, not this
  Verdict verdict = Verdict::kNone;
  bool body_read = false;    // all of the body is in r->request_body
  bool body_wanted = false;  // a variable asked for what only the body tells
  bool model_sought = false;
  bool judged = false;  // limits were judged: not again after an internal redirect
  const Tier* tier = nullptr;
  const Rule* exceeded = nullptr;  // the limit that refused, the one to wait for longest
  int64_t retry_after_s = 0;
  ngx_str_t model{};

  // What admission charged, kept where penstockd may still refuse the job.
  limit::Table* table = nullptr;
  std::span<Paid> paid;

  // The job, once handed over.
  char job_id_bytes[40];
  size_t job_id_size = 0;
  uint64_t eta_ms = 0;

  // The answer of the server that is being tried.
  bool answer_begun =
      false;  // a head or a failure has come: what goes out is not an error page of Nginx's
  bool answer_is_problem = false;  // u->buffer holds a body of ours, not frames
  bool answer_is_events = false;   // text/event-stream
  off_t answer_left = -1;          // bytes that its content_length still promises; -1: no promise
  AnswerStream answer;
  ngx_table_elt_t* answer_headers[2] = {};  // pushed for it
  void forget_answer() noexcept;

  ngx_chain_t* problem_body = nullptr;  // replaces an error page of Nginx's own

  std::string_view job_id() const noexcept { return {job_id_bytes, job_id_size}; }
};

// The request's state, found again after internal redirects; nullptr if there is none yet.
RequestState* find_state(ngx_http_request_t* r) noexcept;
// The same, made if there is none; nullptr when memory ran out.
RequestState* state_of(ngx_http_request_t* r) noexcept;

// The model that the body names, empty if none. When the body has not been read, notes that it is
// wanted.
std::string_view model_of(ngx_http_request_t* r, RequestState& state) noexcept;

// Adds a response header. `key` must be a literal, `value` must live as long as the request.
// nullptr when memory ran out.
ngx_table_elt_t* push_header(ngx_http_request_t* r, std::string_view key, ngx_str_t value) noexcept;

}  // namespace penstock
