// SipHash-1-3 with 128 bits out: the keyed hash under every counter.
//
// Keys (credentials, addresses) are never stored; the table keeps 61 bits of this hash and finds
// its place by the rest. The secret makes it impossible to choose keys that crowd one place of the
// table, or to read a credential back from a memory dump. One round per word and three at the end
// are enough for a table nobody sees the hashes of; the same code with 2 and 4 rounds is checked
// against the authors' published vectors.
//
// Sources: J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012; the
// 128-bit output as in the authors' reference implementation (github.com/veorq/SipHash).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace penstock::limit {

static_assert(std::endian::native == std::endian::little, "words are read as little-endian");

// 16 bytes from a good random source, e.g. getrandom(2). Never logged.
struct Secret {
  uint64_t k0 = 0;
  uint64_t k1 = 0;

  friend bool operator==(const Secret&, const Secret&) = default;
};

struct Hash128 {
  uint64_t lo = 0;
  uint64_t hi = 0;

  friend bool operator==(const Hash128&, const Hash128&) = default;
};

// The four words of SipHash. kCompress rounds are done per 8 bytes of input, kFinalize at the end.
template <int kCompress, int kFinalize>
class SipState {
 public:
  explicit SipState(const Secret& key) noexcept
      : v0_(key.k0 ^ 0x736f6d6570736575),
        v1_(key.k1 ^ 0x646f72616e646f6d),
        v2_(key.k0 ^ 0x6c7967656e657261),
        v3_(key.k1 ^ 0x7465646279746573) {}

  uint64_t hash64(const void* data, size_t size) noexcept {
    absorb(data, size);
    v2_ ^= 0xff;
    return squeeze();
  }

  Hash128 hash128(const void* data, size_t size) noexcept {
    v1_ ^= 0xee;
    absorb(data, size);
    v2_ ^= 0xee;
    const uint64_t lo = squeeze();
    v1_ ^= 0xdd;
    return {lo, squeeze()};
  }

 private:
  template <int kRounds>
  void rounds() noexcept {
    for (int i = 0; i < kRounds; ++i) {
      v0_ += v1_;
      v2_ += v3_;
      v1_ = std::rotl(v1_, 13) ^ v0_;
      v3_ = std::rotl(v3_, 16) ^ v2_;
      v0_ = std::rotl(v0_, 32);
      v2_ += v1_;
      v0_ += v3_;
      v1_ = std::rotl(v1_, 17) ^ v2_;
      v3_ = std::rotl(v3_, 21) ^ v0_;
      v2_ = std::rotl(v2_, 32);
    }
  }

  void word(uint64_t m) noexcept {
    v3_ ^= m;
    rounds<kCompress>();
    v0_ ^= m;
  }

  void absorb(const void* data, size_t size) noexcept {
    const auto* at = static_cast<const unsigned char*>(data);
    for (size_t left = size / 8; left != 0; --left, at += 8) {
      uint64_t m;
      std::memcpy(&m, at, 8);
      word(m);
    }
    word(uint64_t{size & 0xff} << 56 | tail(at, size & 7));
  }

  // The last `size` < 8 bytes as a little-endian number, in at most three loads.
  static uint64_t tail(const unsigned char* at, size_t size) noexcept {
    uint64_t m = 0;
    size_t done = 0;
    if ((size & 4) != 0) {
      uint32_t four;
      std::memcpy(&four, at, 4);
      m = four;
      done = 4;
    }
    if ((size & 2) != 0) {
      uint16_t two;
      std::memcpy(&two, at + done, 2);
      m |= uint64_t{two} << (8 * done);
      done += 2;
    }
    if ((size & 1) != 0) {
      m |= uint64_t{at[done]} << (8 * done);
    }
    return m;
  }

  uint64_t squeeze() noexcept {
    rounds<kFinalize>();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

  uint64_t v0_, v1_, v2_, v3_;
};

// The hash of a key under a limit's secret. O(size); about 10 ns for an address, 20 ns for 64
// bytes.
Hash128 siphash13_128(const Secret& secret, const void* data, size_t size) noexcept;

inline Hash128 siphash13_128(const Secret& secret, std::string_view data) noexcept {
  return siphash13_128(secret, data.data(), data.size());
}

// The secret of one limit, made once when the configuration is read: two limits with the same key
// land on unrelated hashes, and a request hashes only the key's own bytes. It depends on nothing
// but the zone's secret and the name, so that a reload finds the same counters again.
Secret derive_secret(const Secret& zone, std::string_view limit_name) noexcept;

}  // namespace penstock::limit
