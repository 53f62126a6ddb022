// The cryptography that challenges and passes are made of, by OpenSSL's libcrypto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/base/hmac.h"

namespace penstock::challenge {

// Where libcrypto fails, each of these is random bytes, as hmac() is: then nothing is ours, and
// nothing solved.
Digest sha256(std::string_view text) noexcept;
// RFC 8018, with HMAC-SHA-256: `rounds` of two compressions each.
Digest pbkdf2(std::string_view password, std::string_view salt, uint32_t rounds) noexcept;

// Whether libcrypto does all of this here.
bool can_digest() noexcept;

// In a time that tells nothing of where they differ. REQUIRES: both have one size.
bool same(std::span<const uint8_t> a, std::span<const uint8_t> b) noexcept;

inline std::string_view text_of(std::span<const uint8_t> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Lower-case hexadecimal digits, two for each byte; returns their end.
char* write_hex(std::span<const uint8_t> bytes, char* out) noexcept;
// False: they are not as many digits as that, all of them lower-case.
bool read_hex(std::string_view digits, std::span<uint8_t> out) noexcept;

}  // namespace penstock::challenge
