// Solution: what a caller says it has solved, read from the payload of ALTCHA's widgets and
// libraries: base 64 of JSON.
//
//   version 1   {"algorithm","challenge","number","salt","signature"}, and perhaps "took"
//   version 2   {"challenge":{"parameters":P,"signature"},
//                "solution":{"counter","derivedKey"}}, and perhaps "time"
//
// One reading only is possible: each member once and no other, no escapes, the salt to its last
// byte, whole numbers without leading zeros. What was signed is written anew from what was read.
#pragma once

#include <optional>
#include <string_view>

#include "shared/challenge/challenge.h"
#include "shared/challenge/pass.h"

namespace penstock::challenge {

constexpr size_t kMostPayloadBytes = 4096;

struct Solution {
  Format format = Format::kSha256;
  Digest signature{};
  // Version 1.
  Salt salt;
  Digest digest{};
  uint64_t number = 0;
  // Version 2.
  Parameters parameters;
  uint32_t counter = 0;
  Digest key{};

  const Holder& holder() const noexcept {
    return format == Format::kSha256 ? salt.holder : parameters.holder;
  }
  int64_t expires_s() const noexcept {
    return format == Format::kSha256 ? salt.expires_s : parameters.expires_s;
  }
  // What is unlike any other challenge's, whatever the payload's spelling.
  std::string_view id() const noexcept {
    return format == Format::kSha256 ? text_of(digest) : text_of(parameters.nonce);
  }
};

// Nothing is believed yet of what it says.
std::optional<Solution> read_solution(std::string_view payload) noexcept;

// Whether the challenge is one of ours, for this holder, and its time is now: a few microseconds.
bool is_ours(const Keys& keys, const Solution& solution, const Holder& holder,
             int64_t now_s) noexcept;

// Whether it is solved, too: one hash, or, of a prefix only, a derivation of a few hundred rounds,
// which the signature bounds. REQUIRES: it is_ours().
bool is_solved(const Keys& keys, const Solution& solution) noexcept;

// What it is worth: the same pass each time, good for `seconds` from when the challenge was issued.
Pass pass_for(const Solution& solution, int64_t seconds) noexcept;

}  // namespace penstock::challenge
