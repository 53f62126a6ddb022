#include "shared/limit/siphash.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <set>
#include <string>

namespace penstock::limit {
namespace {

// The key and inputs of the authors' vectors: bytes 0, 1, 2, ...
constexpr Secret kKey{0x0706050403020100, 0x0f0e0d0c0b0a0908};

std::array<unsigned char, 64> counting_bytes() {
  std::array<unsigned char, 64> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(i);
  }
  return bytes;
}

std::string hex(const void* data, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    static const char* digits = "0123456789ABCDEF";
    const unsigned char byte = static_cast<const unsigned char*>(data)[i];
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::string hex(const Hash128& hash) { return hex(&hash, sizeof(hash)); }

TEST(SipHashTest, TwoFourGivesTheAuthorsVectors) {
  struct Vector {
    size_t size;
    const char* hash64;
    const char* hash128;
  };
  const Vector vectors[] = {
      {0, "310E0EDD47DB6F72", "A3817F04BA25A8E66DF67214C7550293"},
      {1, "FD67DC93C539F874", "DA87C1D86B99AF44347659119B22FC45"},
      {7, "37D1018BF50002AB", "A1F1EBBED8DBC153C0B84AA61FF08239"},
      {8, "6224939A79F5F593", "3B62A9BA6258F5610F83E264F31497B4"},
      {15, "E545BE4961CA29A1", "5493E99933B0A8117E08EC0F97CFC3D9"},
      {16, "DB9BC2577FCC2A3F", "6EE2A4CA67B054BBFD3315BF85230577"},
      {33, "E37859F94623F3A7", "77C6077146F01C32B6B69D5F4EA9FFCF"},
      {63, "724506EB4C328A95", "5150D1772F50834A503E069A973FBD7C"},
  };
  const auto bytes = counting_bytes();
  for (const Vector& vector : vectors) {
    const uint64_t hash64 = SipState<2, 4>(kKey).hash64(bytes.data(), vector.size);
    EXPECT_EQ(hex(&hash64, 8), vector.hash64) << vector.size;
    EXPECT_EQ(hex(SipState<2, 4>(kKey).hash128(bytes.data(), vector.size)), vector.hash128);
  }
}

// From another implementation: openssl mac -macopt c-rounds:1 -macopt d-rounds:3 SIPHASH.
TEST(SipHashTest, OneThreeAgreesWithOpenSsl) {
  const std::pair<size_t, const char*> vectors[] = {
      {0, "E77EBCB22788A5BEFD62DB6ADD303001"},  {1, "FC6F370460D3EDA85E0573CC2B2FF063"},
      {7, "1084B923F2AAE0C3A62F2EC80848AB77"},  {8, "AA12FEE1D5E3DAB4724F16AB35F9C799"},
      {15, "C17E5505B2BD526C2921CDEC1E7E0109"}, {16, "D0A8D95715518EEBB513B0F83D9E1793"},
      {33, "C5F57BAE1320FCF4B4E868E71D56C66B"}, {63, "4C5800E34EFE426F079F6B0AA75260AD"},
  };
  const auto bytes = counting_bytes();
  for (const auto& [size, expected] : vectors) {
    EXPECT_EQ(hex(siphash13_128(kKey, bytes.data(), size)), expected) << size;
  }
}

TEST(SipHashTest, LimitsHashTheSameKeyApart) {
  std::set<std::string> hashes;
  for (const char* name : {"", "ip", "free-rate", "free-rate-2"}) {
    hashes.insert(hex(siphash13_128(derive_secret(kKey, name), "192.0.2.1")));
  }
  EXPECT_EQ(hashes.size(), 4u);
  EXPECT_EQ(derive_secret(kKey, "ip"), derive_secret(kKey, "ip"));
}

}  // namespace
}  // namespace penstock::limit
