// What is to be done after each answer to a request of a batch, and how fast requests may go.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::ctl {

// An answer, as far as the next step hangs on it.
struct Heard {
  int status = 0;             // 0: none came
  int64_t retry_after_s = 0;  // 0: not said
  bool of_a_job = false;      // it tells how a job ended, and not what Nginx ran into
};

struct NextStep {
  enum Kind : uint8_t {
    kFinal,   // that is the answer
    kAgain,   // the same question again, after `wait_ms`
    kPoll,    // it was promised: ask for its result, after `wait_ms`
    kGiveUp,  // the edge is not there
    kPutOff,  // the caller was refused, not the request: it is for another run, with another key
  } kind = kFinal;
  int64_t wait_ms = 0;
  bool for_all = false;  // no other request should be sent before that either
};

// An answer that tells to come back is obeyed for ever; one that is lost, or that Nginx made
// because it reached nobody, is asked for again, a second later, then two, up to 30; after
// `kMostTries` in a row it is final. `tries`: of these so far, this one included.
constexpr int kMostTries = 8;
NextStep next_step(const Heard& heard, int tries);

// "N/DURATION", as 1/120s: how long from one request to the next. Nothing: it is no such text.
std::optional<int64_t> parse_rate_ns(std::string_view text);

}  // namespace penstock::ctl
