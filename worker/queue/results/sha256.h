// SHA-256 of what comes piece by piece, by OpenSSL's libcrypto.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

namespace penstock::queue {

// As lower-case hexadecimal digits.
template <typename Bytes>
std::string hex_of(const Bytes& bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4U]);
    text.push_back(kDigits[byte & 0xFU]);
  }
  return text;
}

class Sha256 {
 public:
  Sha256() {
    check(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr));
  }
  void add(std::string_view bytes) {
    check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()));
  }
  // Once.
  std::string hex() {
    std::array<uint8_t, 32> digest{};
    check(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr));
    return hex_of(digest);
  }
  static std::string of(std::string_view bytes) {
    Sha256 sha;
    sha.add(bytes);
    return sha.hex();
  }

 private:
  // It fails for want of memory alone.
  static void check(int done) {
    if (done == 0) {
      std::abort();
    }
  }
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_{EVP_MD_CTX_new()};
};

}  // namespace penstock::queue
