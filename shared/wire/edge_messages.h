// Messages of edges alone, as messages.h has the others: what was settled and what a quota has come
// to, and challenges of providers.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/wire/message_codec.h"

namespace penstock::wire {

// What the edge has settled for a job of its caller's whose DONE it has not heard. If the job is
// not over, it is as CANCEL.
struct Spent {
  static constexpr FrameType kType = FrameType::kSpent;
  uint64_t requests = 0;       // 1: the request itself stays charged
  uint64_t prompt_tokens = 0;  // these are guessed
  uint64_t completion_tokens = 0;
  uint64_t gpu_ms = 0;
  template <typename V>
  void visit(V&& v) {
    v(114, requests), v(22, prompt_tokens), v(23, completion_tokens), v(115, gpu_ms);
  }
};

// A key has used so much of a quota: for the operator's hooks.
struct QuotaNotice {
  static constexpr FrameType kType = FrameType::kQuota;
  std::string_view limit;     // the limit's name
  std::string_view key_hash;  // the keyed hash of whom it counts, in hexadecimal digits
  std::string_view unit;      // "requests", "tokens", "gpu_seconds"
  std::string_view period;    // "d"
  uint64_t percent = 0;       // that were passed
  uint64_t used = 0;          // in the limit's units
  uint64_t most = 0;
  uint64_t began_s = 0;  // the period, since 1970
  uint64_t ends_s = 0;
  template <typename V>
  void visit(V&& v) {
    v(3, limit), v(116, key_hash), v(117, unit), v(120, period), v(121, percent), v(122, used);
    v(123, most), v(124, began_s), v(125, ends_s);
  }
};

// The answer to a provider's challenge: is it a good one?
struct Verify {
  static constexpr FrameType kType = FrameType::kVerify;
  std::string_view provider;   // "turnstile", "hcaptcha", "recaptcha"
  std::string_view sitekey;    // of the widget that it is to come from
  std::string_view token;      // as the widget made it
  std::string_view caller;     // who brings it: the same bytes for the same caller
  std::string_view remote_ip;  // told to the provider only where penstock.yaml says so
  template <typename V>
  void visit(V&& v) {
    v(107, provider), v(108, sitekey), v(109, token), v(110, caller), v(111, remote_ip);
  }
};

// kUnknown: it could not be asked, or its answer is none. kBusy: penstockd has too much to ask.
enum class Verdict : uint64_t { kUnknown = 0, kGood = 1, kBad = 2, kBusy = 3 };

struct Verified {
  static constexpr FrameType kType = FrameType::kVerified;
  uint64_t verdict = 0;  // Verdict
  template <typename V>
  void visit(V&& v) {
    v(112, verdict);
  }
};

}  // namespace penstock::wire
