// What a provider's siteverify answered, and what that says of the caller's token. Pure: the answer
// and the time come in. The answer is hostile input: its size is bounded by who has read it, and
// nothing but a clear yes is one.
//
//   https://developers.cloudflare.com/turnstile/get-started/server-side-validation/
//   https://docs.hcaptcha.com/#verify-the-user-response-server-side
//   https://developers.google.com/recaptcha/docs/verify
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/wire/messages.h"
#include "worker/queue/config/provider_config.h"

namespace penstock::queue {

struct ProviderVerdict {
  wire::Verdict verdict = wire::Verdict::kUnknown;
  std::string reason;       // of one that is not kGood, for the log
  bool maybe_ours = false;  // of kBad: the operator's settings may be to blame as well
};

// `status`: HTTP's. `now_s`: Unix seconds. kBad is what the caller's token is to blame for,
// kUnknown what only the provider or the operator can bring about, whatever the token is.
// A score, which reCAPTCHA 3 gives, is to be `least_score`, or 0.5 where that is unset.
ProviderVerdict judge_answer(const ProviderConfig& provider, int status, std::string_view body,
                             int64_t now_s);

}  // namespace penstock::queue
