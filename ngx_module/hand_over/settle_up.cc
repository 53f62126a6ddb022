#include "ngx_module/hand_over/settle_up.h"

#include <algorithm>

#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"
#include "shared/wire/messages.h"

namespace penstock {
namespace {

uint64_t prompt_guess(ngx_http_request_t* r, const RequestState& state) noexcept {
  const double prompt = static_cast<double>(state.prompt_bytes) /
                        estimate_of(*main_conf(r), view(state.model)).bytes_per_token;
  return static_cast<uint64_t>(prompt) + state.media_tokens;
}

// What the caller that left a stream has had: the prompt, and a token with each piece of the
// answer.
Usage usage_so_far(ngx_http_request_t* r, const RequestState& state) noexcept {
  return {prompt_guess(r, state) + state.chunks,
          static_cast<uint64_t>((monotonic_ns() - state.begun_ns) / kNsPerMs)};
}

// What was done, most likely, for a caller to whom nothing of its answer came: the device time
// since it must have started, and tokens in step with that.
Usage usage_so_far_unseen(ngx_http_request_t* r, const RequestState& state) noexcept {
  const int64_t waited_ns = state.runs ? 0 : static_cast<int64_t>(state.eta_ms) * kNsPerMs;
  const bool told = state.runs || state.eta_ms != 0;
  const int64_t ran_ns =
      state.accepted_ns != 0 && told ? monotonic_ns() - state.accepted_ns - waited_ns : 0;
  if (ran_ns <= 0) {
    return {};  // it was in the queue still
  }
  const Estimate usual = estimate_of(*main_conf(r), view(state.model));
  const double done = static_cast<double>(ran_ns) / kNsPerMs / std::max(usual.gpu_ms, 1.0);
  const auto reserved = static_cast<double>(state.cost[static_cast<size_t>(Unit::kTokens)]);
  return {static_cast<uint64_t>(reserved * std::min(done, 1.0)),
          static_cast<uint64_t>((ran_ns + kNsPerMs - 1) / kNsPerMs)};
}

// The connection ended before penstockd had said anything to who asked for a promise: the job may
// be on disk, and then what was charged is its own.
bool may_be_promised(const ngx_http_request_t* r, const RequestState& state) noexcept {
  return r->upstream->request_sent != 0 && state.job_id_size == 0 && !state.answer_begun &&
         wants_promise(state);
}

// What stays charged of a request.
struct Stays {
  bool request = false;
  Usage usage;
};

Stays settle_by(RequestState& state, const Usage& usage) noexcept {
  state.usage = usage;
  state.billed = !state.promised;
  settle(state.receipt, usage);
  return {true, usage};
}

Stays charge_nothing(RequestState& state) noexcept {
  give_all_back(state);
  return {};
}

Stays charge_request(RequestState& state) noexcept {
  refund(state.receipt, false);
  return {true, {}};
}

// Nginx reads no further where an answer has no body (204, 304, HEAD): what it took is not told.
bool ends_with_its_head(const ngx_http_request_t* r, const RequestState& state) noexcept {
  return r->upstream->header_sent != 0 && r->header_only != 0 && state.failed_status == 0 &&
         r->upstream->headers_in.status_n < NGX_HTTP_BAD_REQUEST;
}

// A refusal costs nothing, also when it was penstockd that refused; nor does a failure of ours. A
// caller that leaves the queue gets back all but the request itself; one that leaves while its job
// runs pays for what was done until then, and one that leaves an answer that was made whole before
// it began to come, all of it.
Stays settle_all(ngx_http_request_t* r, RequestState& state, bool failed, bool left) noexcept {
  if (state.duplicate) {
    return charge_request(state);  // the job was there already: it cost the request alone
  }
  if (failed && r->upstream->header_sent == 0) {
    return charge_nothing(state);  // nothing of it has reached its caller
  }
  if (state.done) {
    if (!state.usage_estimated && r->headers_out.status < NGX_HTTP_BAD_REQUEST) {
      // What pictures come to says nothing of text.
      const uint64_t text = state.media_tokens == 0 ? state.prompt_bytes : 0;
      learn(*main_conf(r), view(state.model), text, state.prompt_tokens,
            state.usage.tokens - state.prompt_tokens, state.usage.gpu_ms);
    }
    return settle_by(state, state.usage);
  }
  if (state.chunks != 0 && state.answer_is_events) {
    return settle_by(state, usage_so_far(r, state));
  }
  if (failed) {
    return charge_nothing(state);
  }
  if (state.chunks == 0) {
    return left || ends_with_its_head(r, state) ? settle_by(state, usage_so_far_unseen(r, state))
                                                : charge_request(state);
  }
  return {true,
          {reserved_of(state.receipt, Unit::kTokens), reserved_of(state.receipt, Unit::kGpu)}};
}

// For penstockd's ledger, where it has not said itself what the job came to. What does not go out
// at once is not told: the ledger goes by penstockd's own guess then.
void tell_spent(ngx_http_request_t* r, const RequestState& state, const Stays& stays) noexcept {
  ngx_connection_t* const c = r->upstream->peer.connection;
  if (!state.counts || state.promised || state.done || state.answer_is_problem || c == nullptr ||
      c->error != 0) {
    return;
  }
  wire::Spent spent;
  spent.requests = stays.request ? 1 : 0;
  spent.prompt_tokens = std::min(stays.usage.tokens, prompt_guess(r, state));
  spent.completion_tokens = stays.usage.tokens - spent.prompt_tokens;
  spent.gpu_ms = stays.usage.gpu_ms;
  char bytes[128];
  const char* const end = wire::encode(bytes, kJob, spent);
  c->send(c, reinterpret_cast<u_char*>(bytes), static_cast<size_t>(end - bytes));
}

}  // namespace

uint64_t passed_us(const ngx_http_request_t* r) noexcept {
  const ngx_time_t* const now = ngx_timeofday();
  const int64_t passed_ms = (static_cast<int64_t>(now->sec) - r->start_sec) * 1000 +
                            static_cast<int64_t>(now->msec) - static_cast<int64_t>(r->start_msec);
  return passed_ms > 0 ? static_cast<uint64_t>(passed_ms) * 1000 : 1;
}

bool is_overdue(const ngx_http_request_t* r, const RequestState& state,
                std::string_view code) noexcept {
  constexpr uint64_t kRoundingMs = 2;
  const uint64_t within_ms =
      state.job_headers == nullptr ? 0 : state.job_headers->done_within_ms(!state.answer_is_events);
  return state.runs && code == "deadline_exceeded" && within_ms != 0 &&
         passed_us(r) / 1000 + kRoundingMs >= within_ms;
}

void note_place(RequestState& state, uint64_t position, uint64_t eta_ms) noexcept {
  const bool runs = position == 0;
  if (!runs || !state.runs) {
    state.accepted_ns = monotonic_ns();  // of one that runs: when that was first told
  }
  state.eta_ms = runs ? state.eta_ms : eta_ms;
  state.runs = runs;
}

void settle_up(ngx_http_request_t* r, RequestState& state, bool failed, bool left) noexcept {
  if (may_be_promised(r, state)) {
    return hand_over(state.receipt);
  }
  tell_spent(r, state, settle_all(r, state, failed, left));
}

}  // namespace penstock
