// A time as people write it on a command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace penstock::ctl {

// "2h" (ago), "2026-11-30T08:00:00Z", "2026-11-30", seconds since 1970. Nothing: it is none.
std::optional<int64_t> time_of(const std::string& text, int64_t now_s);

}  // namespace penstock::ctl
