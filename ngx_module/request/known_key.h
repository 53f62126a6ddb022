// KnownKey: what is known of the key that a request brings.
#pragma once

#include <array>

#include "shared/keys/keys_file.h"

namespace penstock {

enum class KeyState : uint8_t { kNone, kKnown, kUnknown, kExpired };

struct KnownKey {
  KeyState state = KeyState::kNone;
  bool by_cookie = false;                  // of whoever signed in, and not by a header
  std::string_view owner, tier;            // of one that is known; in the request's pool
  std::array<char, keys::kIdBytes> id{};   // the same, and of one that has expired
  std::array<uint8_t, 16> digest_begin{};  // of one that is known
  int64_t ends_s = 0;                      // of one that is known; 0: never
};

}  // namespace penstock
