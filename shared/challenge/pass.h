// Pass: what whoever solved a challenge goes on under. It is signed and not stored:
//
//   KIND.EPOCH.BASE64URL(limit 4 | subject 8 | id 8 | issued u32 | seconds u32).BASE64URL(mac 16)
//
// The integers are big-endian. The mac is the first half of HMAC-SHA-256 over "penstock-pass", a
// zero byte and all that stands before it, by the key of the week EPOCH (keys.h). The key of this
// week and of the one before are good, so nothing has to be exchanged. A mac covers the kind, so
// none passes for another: "p1" is a pass; what else is for a holder has the same form (Kind).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "shared/challenge/keys.h"

namespace penstock::challenge {

constexpr int64_t kLongestPassSeconds = 7 * 86400;
// Hosts' clocks may differ by so much.
constexpr int64_t kClockSkewSeconds = 60;

enum class Kind : uint8_t {
  kPass,    // p1
  kTicket,  // t1: the page of a provider's challenge was for this holder
  kAway,    // a1: a provider could not be asked about this holder's answer
};

struct Pass {
  Holder holder;
  std::array<uint8_t, 8> id{};  // of the challenge that was solved for it
  int64_t issued_s = 0;         // Unix seconds
  int64_t seconds = 0;          // for which it is good
};

struct PassText {
  std::array<char, 96> bytes;
  size_t size = 0;

  std::string_view view() const noexcept { return {bytes.data(), size}; }
};

PassText write_pass(const Keys& keys, const Pass& pass, Kind kind = Kind::kPass) noexcept;

// What a pass of this kind says that is ours and has not ended; nothing of any other text.
std::optional<Pass> read_pass(const Keys& keys, std::string_view text, int64_t now_s,
                              Kind kind = Kind::kPass) noexcept;

}  // namespace penstock::challenge
