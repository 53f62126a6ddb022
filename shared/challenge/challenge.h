// Challenge: a proof of work to be solved, in ALTCHA's formats (https://altcha.org/docs). All of it
// is in what the caller is given, signed; nothing is kept here, however many are asked for.
//
// Version 1, SHA-256: which number n makes SHA-256(salt n) the challenge?
//   {"algorithm":"SHA-256","challenge":H,"maxnumber":N,"salt":S,"signature":G}
//   S   24 hex digits, "?expires=UNIX&l=LIMIT&s=SUBJECT&"; without the last "&" digits of the
//       time could be moved into n (CVE-2025-68113)
//   G   HMAC(signature key, H)
//
// Version 2, PBKDF2/SHA-256: which counter c makes a key of PBKDF2(nonce c, salt) begin so?
//   {"parameters":P,"signature":G}, G = HMAC(signature key, P), P's members sorted, no spaces
//   keyPrefix     what the key begins with, in hex digits
//   keySignature  HMAC(number key, key), where the key is known: then no derivation is needed to
//                 check a solution. Else the prefix is all that is asked for.
//
// The number is drawn from the whole of [0, N): a solver gains nothing by where it starts.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "shared/challenge/keys.h"

namespace penstock::challenge {

constexpr int64_t kLifeSeconds = 300;  // in which it is to be solved
constexpr int kLevels = 4;             // of difficulty, from 1

enum class Format : uint8_t {
  kSha256,       // version 1: runs anywhere
  kPbkdf2,       // version 2: costs others as much as a browser; one derivation to issue
  kPbkdf2Prefix  // version 2 with a prefix only: nothing to issue, a short derivation to check
};

// Random bytes that a challenge is made of: fresh ones for each.
using Random = std::array<uint8_t, 40>;

struct ChallengeText {
  std::array<char, 640> bytes;
  size_t size = 0;

  std::string_view view() const noexcept { return {bytes.data(), size}; }
};

// As a JSON object. REQUIRES: level is 1 to kLevels.
ChallengeText write_challenge(const Keys& keys, Format format, int level, const Holder& holder,
                              const Random& random, int64_t now_s) noexcept;

// ---- for solution.h, too ----

// S of version 1.
struct Salt {
  std::array<uint8_t, 12> random{};
  int64_t expires_s = 0;
  Holder holder;
};

// P of version 2.
struct Parameters {
  uint32_t cost = 0;
  int64_t expires_s = 0;
  Holder holder;
  std::array<char, 32> prefix{};  // hex digits
  size_t prefix_size = 0;
  bool has_key_signature = false;
  Digest key_signature{};
  std::array<uint8_t, 16> nonce{};
  std::array<uint8_t, 16> salt{};

  std::string_view prefix_text() const noexcept { return {prefix.data(), prefix_size}; }
};

constexpr size_t kMostSaltText = 24 + 9 + 20 + 3 + 8 + 3 + 16 + 1;
constexpr size_t kMostParametersText = 512;

constexpr std::string_view kSha256Name = "SHA-256";
constexpr std::string_view kPbkdf2Name = "PBKDF2/SHA-256";

// Each returns its end.
char* write_salt(const Salt& salt, char* out) noexcept;
char* write_parameters(const Parameters& parameters, char* out) noexcept;

// H: of the salt's text and a number's.
Digest number_digest(std::string_view salt, uint64_t number) noexcept;
// The key of a counter.
Digest derive_key(const Parameters& parameters, uint32_t counter) noexcept;

}  // namespace penstock::challenge
