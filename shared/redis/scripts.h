// The scripts that run in Redis, as they are in scripts/: each says there what it takes and
// answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::redis {

enum class Script : uint8_t { kHosts, kLease, kWindow, kLog, kReset };
constexpr size_t kScripts = 5;

// Part of each key: what another version of the scripts has put there is not met.
constexpr char kLayout[] = "1";

std::string_view text_of(Script script) noexcept;

}  // namespace penstock::redis
