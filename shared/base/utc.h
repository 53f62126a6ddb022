// A moment as UTC text.
#pragma once

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>

namespace penstock {

constexpr char kIsoUtc[] = "%Y-%m-%dT%H:%M:%SZ";   // 2026-11-25T18:09:00Z
constexpr char kBasicIsoUtc[] = "%Y%m%dT%H%M%SZ";  // 20261125T180900Z

// Seconds since 1970, written as `format` says (strftime): 63 characters at most, else empty.
inline std::string utc_text(int64_t unix_s, const char* format = kIsoUtc) {
  const auto seconds = static_cast<time_t>(unix_s);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &utc)};
}

// With milliseconds: "2026-11-25T18:09:00.123Z".
inline std::string iso_time(int64_t unix_ms) {
  constexpr int64_t kMsPerSec = 1000;
  char ms[16];
  std::snprintf(ms, sizeof ms, ".%03dZ", static_cast<int>(unix_ms % kMsPerSec));
  return utc_text(unix_ms / kMsPerSec, "%Y-%m-%dT%H:%M:%S") + ms;
}

}  // namespace penstock
