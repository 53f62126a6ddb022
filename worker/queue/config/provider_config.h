// `challenges` of penstock.yaml, read: providers of challenges (Turnstile and the like), each asked
// whether an answer that a caller brings is good.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/clock.h"

namespace penstock::queue {

struct ProviderConfig {
  std::string name;                    // "turnstile", "hcaptcha", "recaptcha"
  std::string secret_file;             // that holds:
  std::string secret;                  // never shown
  std::vector<std::string> hostnames;  // of the pages whose widgets count, in lower case
  std::string action;                  // that the widget has to have; empty: any
  std::optional<double> least_score;   // of reCAPTCHA; unset: see provider_answer.h
  int64_t timeout_ns = 5 * kNsPerSec;
  int64_t max_age_ns = 300 * kNsPerSec;  // since the challenge was solved
  bool sends_remote_ip = false;
  std::string url;
  bool operator==(const ProviderConfig&) const = default;
};

}  // namespace penstock::queue
