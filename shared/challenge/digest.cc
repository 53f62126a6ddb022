#include "shared/challenge/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

namespace penstock::challenge {
namespace {

const uint8_t* bytes_of(std::string_view text) noexcept {
  return reinterpret_cast<const uint8_t*>(text.data());
}

// 0 to 15; -1: it is none.
int digit(char c) noexcept {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

Digest sha256(std::string_view text) noexcept {
  Digest digest;
  return SHA256(bytes_of(text), text.size(), digest.data()) != nullptr ? digest : unlike_any();
}

Digest pbkdf2(std::string_view password, std::string_view salt, uint32_t rounds) noexcept {
  Digest key;
  return PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), bytes_of(salt),
                           static_cast<int>(salt.size()), static_cast<int>(rounds), EVP_sha256(),
                           static_cast<int>(key.size()), key.data()) == 1
             ? key
             : unlike_any();
}

bool can_digest() noexcept {
  return sha256("a") == sha256("a") && hmac("a", "b") == hmac("a", "b") &&
         pbkdf2("a", "b", 1) == pbkdf2("a", "b", 1);
}

bool same(std::span<const uint8_t> a, std::span<const uint8_t> b) noexcept {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

char* write_hex(std::span<const uint8_t> bytes, char* out) noexcept {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (const uint8_t byte : bytes) {
    *out++ = kDigits[byte >> 4];
    *out++ = kDigits[byte & 15];
  }
  return out;
}

bool read_hex(std::string_view digits, std::span<uint8_t> out) noexcept {
  if (digits.size() != 2 * out.size()) {
    return false;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = digit(digits[2 * i]);
    const int low = digit(digits[2 * i + 1]);
    if (high < 0 || low < 0) {
      return false;
    }
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

}  // namespace penstock::challenge
