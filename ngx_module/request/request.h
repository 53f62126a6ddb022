// What the module knows of one request while it lives.
#pragma once

#include <span>

#include "ngx_module/conf/conf.h"
#include "ngx_module/request/answer_stream.h"
#include "ngx_module/request/body.h"
#include "ngx_module/request/headers.h"
#include "ngx_module/request/outcome.h"
#include "ngx_module/request/rate_headers.h"
#include "ngx_module/request/receipt.h"
#include "shared/http/header_lines.h"

namespace penstock {

class Charges;
class KnownVariables;
struct JobHeaders;
struct KnownKey;
struct LimitsTold;
struct StoredFile;
struct TokenCheck;
struct WebSocket;

// The limits that a request has met, and what became of each. Past its bound it forgets: a limit is
// then judged again.
class MetLimits {
 public:
  enum Mark : uint8_t {
    kJudged = 1,    // not again after an internal redirect
    kCharged = 2,   // and is still
    kDegraded = 4,  // made the request less
    kVerified = 8,  // of action=challenge: the caller has shown a pass
  };
  bool has(const Limit* limit, Mark mark) const noexcept {
    for (size_t i = 0; i < count_; ++i) {
      if (limits_[i] == limit) {
        return (marks_[i] & mark) != 0;
      }
    }
    return false;
  }
  bool any(Mark mark) const noexcept { return (all_ & mark) != 0; }
  bool empty() const noexcept { return count_ == 0; }
  // Adds a limit. REQUIRES: it is not there yet. False if there is no room.
  bool push(const Limit* limit, unsigned marks) noexcept {
    if (count_ == kMost) {
      return false;
    }
    limits_[count_] = limit;
    marks_[count_++] = static_cast<uint8_t>(marks);
    all_ = static_cast<uint8_t>(all_ | marks);
    return true;
  }
  bool add(const Limit* limit, unsigned marks) noexcept {
    for (size_t i = 0; i < count_; ++i) {
      if (limits_[i] == limit) {
        marks_[i] = static_cast<uint8_t>(marks_[i] | marks);
        all_ = static_cast<uint8_t>(all_ | marks);
        return true;
      }
    }
    return push(limit, marks);
  }
  // Takes the mark off all limits.
  void take_off(Mark mark) noexcept {
    for (size_t i = 0; i < count_; ++i) {
      marks_[i] = static_cast<uint8_t>(marks_[i] & ~mark);
    }
    all_ = static_cast<uint8_t>(all_ & ~mark);
  }
  // The same for kDegraded, of those that an earlier answer was to do for.
  void no_earlier() noexcept {
    all_ = 0;
    for (size_t i = 0; i < count_; ++i) {
      if (limits_[i]->to_earlier) {
        marks_[i] = static_cast<uint8_t>(marks_[i] & ~kDegraded);
      }
      all_ = static_cast<uint8_t>(all_ | marks_[i]);
    }
  }

 private:
  static constexpr size_t kMost = kMaxLimits + kMaxLimits / 2;  // of more than one location
  uint8_t all_ = 0;
  uint8_t count_ = 0;
  uint8_t marks_[kMost];
  const Limit* limits_[kMost];
};

struct RequestState {
  const ngx_http_request_t* request = nullptr;  // whose it is: subrequests share the pool, not this
  Outcome outcome = Outcome::kNone;
  Outcome admitted = Outcome::kPassed;  // the same, whatever a server says that is tried in vain
  bool body_read = false;               // all of the body is in r->request_body
  bool body_wanted = false;             // a variable asked for what only the body tells
  bool model_sought = false;
  bool delayed = false;                  // action=delay, and its time has not come
  bool emptied = false;                  // its headers once were, by a header filter that failed
  bool passes = false;                   // penstock_pass or penstock_jobs has it
  bool settled = false;                  // it was handed over, and that came to its end
  bool runs = false;                     // by what was told last
  bool done = false;                     // the answer is complete, and `usage` is what it took
  KnownVariables* known = nullptr;       // while limits ask for variables
  const KnownKey* caller_key = nullptr;  // that it brings; found when it is first asked for
  const Tier* tier = nullptr;
  const Rule* exceeded = nullptr;  // the limit that refused, the one to wait for longest
  int64_t retry_after_s = 0;
  const LocConf* judged_in[kStages] = {};  // where it was judged last
  const LocConf* costed_in = nullptr;      // by whose formulas its cost was reckoned
  MetLimits met;
  int64_t came_ns = 0;      // when it was first looked at, steady
  int64_t accepted_ns = 0;  // when it came into the queue; or as was last told of it
  RetryHeaders retry = {};  // of a refusal
  BodySearch search;        // for fields of the body
  ngx_str_t model{};
  ngx_str_t replace{};  // fields that take the place of the body's, as JSON: action=degrade

  uint64_t cost[kUnits] = {1, 0, 0};        // reckoned, in the units' counts
  uint64_t asked[kUnits] = {1, 0, 0};       // that much of it by the request's own word
  uint64_t prompt_bytes = 0;                // of text
  uint64_t media_tokens = 0;                // for pictures and sounds
  Receipt receipt;                          // what admission charged
  const JobHeaders* job_headers = nullptr;  // nullptr: it asks for an answer and no more
  RateHeaders rate_headers = {};
  ngx_table_elt_t* degraded_header = nullptr;
  TokenCheck* check = nullptr;  // of the answer that it brings to a provider's challenge
  Charges* held = nullptr;      // by what it is refused if no earlier answer is there (degrade.h)

  // The job, once handed over.
  char job_id_bytes[40];
  size_t job_id_size = 0;
  uint64_t eta_ms = 0;
  uint64_t queue_us = 0;  // that it waited, once its answer has begun
  uint64_t chunks = 0;    // pieces of the answer that have come
  int64_t limit_ns = 0;   // from when it came until it was handed over
  int64_t begun_ns = 0;   // when its head came, steady
  Usage usage;
  bool promised = false;         // a job of its own pays for it, later
  bool billed = false;           // settled by `usage`
  bool counts = false;           // penstockd wants to hear what was settled where it said no DONE
  bool usage_estimated = false;  // by the engine: nothing is learned by it
  uint64_t prompt_tokens = 0;

  // The answer of the server that is being tried.
  bool answer_begun = false;  // a head or a failure has come: no error page of Nginx's goes out
  bool answer_is_problem = false;  // u->buffer holds a body of ours, not frames
  bool answer_is_events = false;   // text/event-stream
  bool answer_waits = false;       // of these, only news of the job have come yet
  uint64_t failed_status = 0;      // what came in place of the rest of it
  bool overdue = false;            // it ran on beyond the time that its caller gave it
  bool asks_upgrade = false;       // by a valid handshake of RFC 6455
  bool duplicate = false;          // of a job that was there already
  off_t answer_left = -1;          // bytes that its content_length still promises; -1: no promise
  AnswerStream answer;
  LimitsTold* limits_told = nullptr;  // in an owner's stream (pages/limits_events.h)
  u_char first_buffer[256];  // while the job waits: most that wait get a sign of life, no more
  WebSocket* websocket = nullptr;  // the client's side, once its upgrade was granted
  static constexpr size_t kMostAnswerHeaders = http::kMaxHeaderLines + 12;
  ngx_table_elt_t** answer_headers = nullptr;  // pushed for it; room for them once there are any
  size_t answer_header_count = 0;
  // Adds a header that another try takes back, unless the location hides it. False when memory ran
  // out, or there are too many.
  bool push_answer_header(ngx_http_request_t* r, std::string_view key, ngx_str_t value) noexcept;
  void forget_answer() noexcept;

  const StoredFile* file = nullptr;  // the answer is one: see stored_file.h

  ngx_chain_t* problem_body = nullptr;  // replaces an error page of Nginx's own

  std::string_view job_id() const noexcept { return {job_id_bytes, job_id_size}; }
};

// All that was charged is given back, as if it had not been.
void give_all_back(RequestState& state) noexcept;

// The state of a request that was redirected internally; nullptr if there is none.
RequestState* find_kept_state(ngx_http_request_t* r) noexcept;

// The request's state, found again after internal redirects; nullptr if there is none yet.
inline RequestState* find_state(ngx_http_request_t* r) noexcept {
  auto* state = static_cast<RequestState*>(ngx_http_get_module_ctx(r, ngx_http_penstock_module));
  return state == nullptr && (r->internal || r->filter_finalize) ? find_kept_state(r) : state;
}
// The same, made if there is none; nullptr when memory ran out.
RequestState* state_of(ngx_http_request_t* r) noexcept;

// The model that the body names, empty if none. When the body has not been read, notes that it is
// wanted.
std::string_view model_of(ngx_http_request_t* r, RequestState& state) noexcept;

// A chunked request counts as having one: nobody knows before it has come.
inline bool has_body(const ngx_http_request_t* r) noexcept {
  return r->headers_in.content_length_n > 0 || r->headers_in.chunked != 0;
}

// Whether the request has a body that is still to be read.
inline bool body_to_come(const ngx_http_request_t* r, const RequestState& state) noexcept {
  return !state.body_read && has_body(r);
}

}  // namespace penstock
