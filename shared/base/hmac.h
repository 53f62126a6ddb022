// HMAC-SHA-256 (RFC 2104), by OpenSSL's libcrypto: who includes this links that.
#pragma once

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace penstock {

using Digest = std::array<uint8_t, 32>;

// In place of what could not be computed: random, so that nothing compares equal to it.
inline Digest unlike_any() noexcept {
  Digest digest;
  if (getrandom(digest.data(), digest.size(), 0) != static_cast<ssize_t>(digest.size())) {
    std::abort();
  }
  return digest;
}

// Where libcrypto fails, that is unlike_any(): nobody takes it for a signature of ours.
inline Digest hmac(std::string_view key, std::string_view text) noexcept {
  Digest digest;
  unsigned size = 0;
  return HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
              reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(),
              &size) != nullptr
             ? digest
             : unlike_any();
}

}  // namespace penstock
