// Log: how an engine tells the operator something.
//
// A line on standard error, where penstockd's own lines go:
//
//     penstock-worker NAME: [warn] text
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace penstock {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };

using Log = std::function<void(LogLevel, std::string_view text)>;

// Writes each line whole, by one call. What is no printable UTF-8 is shown as '?' (one_line()).
Log log_to_stderr(std::string worker);

// Bounds the lines that a peer can cause: of each level at most kMostLines a second, and a count of
// those left out.
constexpr uint32_t kMostLines = 10;
Log bounded(Log log);

}  // namespace penstock
