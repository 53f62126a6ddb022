// Prefer: what a client would rather have (RFC 7240).
//
//   Prefer: respond-async, wait=5
//
// Preferences that are not known, or not well formed, are passed over, as the RFC asks.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::http {

struct Prefer {
  bool respond_async = false;
  std::optional<uint32_t> wait_s;  // of several the first counts
};
// `text` may be several header fields, joined by commas.
Prefer parse_prefer(std::string_view text) noexcept;

// Seconds of `Penstock-Start-Within` and the like, in ms: digits, perhaps a point and more of them;
// more than 0, ten years at most.
std::optional<uint64_t> parse_within_ms(std::string_view text) noexcept;

// Whole seconds of `Penstock-Delay`: digits only, ten years at most.
std::optional<int64_t> parse_delay_seconds(std::string_view text) noexcept;

}  // namespace penstock::http
