// The scripts that run in Redis. Those by which hosts share limits are in scripts/: each says there
// what it takes and answers. Who uses Redis for something else brings others (Settings).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace penstock::redis {

// A script by its number among those of a connection. kHosts is the first of each.
enum class Script : uint8_t { kHosts, kLease, kWindow, kLog, kReset, kSecret };

// Part of each key: what another version of the scripts has put there is not met.
constexpr char kLayout[] = "1";

// In the order of their numbers.
std::span<const std::string_view> limit_scripts() noexcept;

}  // namespace penstock::redis
