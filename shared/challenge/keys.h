// Keys: all that is signed hangs on one master secret, which hosts that share it have alike.
//
//   signature key   HMAC(master, "altcha-signature")   of challenges; as 64 hexadecimal digits,
//   number key      HMAC(master, "altcha-key")         since other implementations take text
//   pass key        HMAC(master, "pass" EPOCH)         of passes; a new one each week
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "shared/challenge/digest.h"

namespace penstock::challenge {

struct Keys {
  Digest master{};
  std::array<char, 64> signature_key{};
  std::array<char, 64> number_key{};
};

Keys make_keys(std::string_view secret) noexcept;

// For whom a challenge or a pass is good: a limit's name, and whom the limit counts. Neither can be
// told from it without the keys.
struct Holder {
  std::array<uint8_t, 4> limit{};
  std::array<uint8_t, 8> subject{};

  bool operator==(const Holder&) const = default;
};

Holder make_holder(const Keys& keys, std::string_view limit, std::string_view who) noexcept;

}  // namespace penstock::challenge
