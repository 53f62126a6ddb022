// The file of issued keys: which there are, whose they are, and how long they are good. No key is
// in it, only its digest: who reads the file cannot ask in anybody's name. Text, a line for each
// key:
//
//   penstock-keys 1
//   DIGEST OWNER TIER MADE ENDS NAME
//   end COUNT
//
//   DIGEST  SHA-256 of the key, 64 lower-case hexadecimal digits. A key has 256 random bits, so a
//           plain digest is enough: there is nothing to guess
//   OWNER   whose it is, see is_owner(); several keys may be one owner's
//   TIER    the plan, by the name that nginx.conf gives it; "-": none
//   MADE    when it was issued, 2026-11-30T07:00:00Z
//   ENDS    from when it is good no longer; "-": never
//   NAME    what it is for, to the end of the line; may be left out
//   COUNT   of the keys: a file that is written in place, or was cut off, is told from a whole one
//
// One space stands between them. Empty lines and those that begin with "#" are passed over.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"
#include "shared/challenge/digest.h"

namespace penstock::keys {

constexpr size_t kMostFileBytes = size_t{16} << 20;  // some 100,000 keys
constexpr size_t kMostKeyBytes = 512;                // of a key that somebody brings

struct Key {
  Digest digest{};
  std::string owner;
  std::string tier;  // empty: none
  int64_t made_s = 0;
  int64_t ends_s = 0;  // 0: never
  std::string name;

  bool has_ended(int64_t now_s) const noexcept { return ends_s != 0 && now_s >= ends_s; }
};

// 1 to 128 of a-z A-Z 0-9 - _ . @ +. An owner stands beside addresses and browsers' sessions, who
// own as well: none of those can be spelled so, but for an IPv4 address, which is no owner. Nor is
// what has the shape of a key's id.
bool is_owner(std::string_view text) noexcept;
constexpr char kOwnerRule[] =
    "1 to 128 of a-z A-Z 0-9 - _ . @ +, and neither an IPv4 address nor 12 hexadecimal digits";
// As nginx.conf has names: 1 to 64 of a-z A-Z 0-9 - _ .
bool is_tier(std::string_view text) noexcept;
// At most 128 bytes of UTF-8 without control characters.
bool is_key_name(std::string_view text) noexcept;

// In the order of their digests. The Error says which line is wrong, how, and what would be right.
Result<std::vector<Key>> read_keys(std::string_view text);
// The file's text. REQUIRES: what is in it is right.
std::string write_keys(std::span<const Key> keys);

// The key whose digest begins so. REQUIRES: `keys` is in the order that read_keys() makes. nullptr:
// there is none.
const Key* find_key(std::span<const Key> keys, std::span<const uint8_t> digest) noexcept;

// By what a key is spoken of, as it is no secret: the first 12 digits of its digest.
constexpr size_t kIdBytes = 12;
std::string id_of(const Digest& digest);

// A new key: "sk-penstock-" and 256 random bits as hexadecimal digits. The Error: none came.
Result<std::string> make_key();

// 2026-11-30T07:00:00Z, both ways; -1: it is no such time, or one before 1970.
std::string format_time(int64_t unix_s);
int64_t parse_time(std::string_view text) noexcept;

}  // namespace penstock::keys
