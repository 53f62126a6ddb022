// Receipts on the wire: what the edge charged for a promised job, which penstockd keeps and hands
// back (SUBMIT, HOLD, OVER). Only the edge reads them, and only what it, or another process of it,
// wrote; they are hostile until parsed all the same.
//
//   1 byte version (3), then for each charge:
//   1 byte size and the zone's name, 1 byte size and the rule's name,
//   8 bytes that tell the zone's table from any other, 8 bytes generation of terms in it,
//   16 bytes place in it, 8 bytes cost, 8 bytes state (limit/charge.h), 8 bytes nonce,
//   8 bytes seal
//
// Numbers are little-endian. Version 2 has neither of the last two, and is read as if they were 0.
//
// What is charged under a limit that is in Redis may be settled by any edge that shares it. Such an
// entry has a seal: a keyed hash of all that it says but its generation, and of the limit's terms,
// under a secret that only edges know which share that very Redis.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::wire {

struct ReceiptEntry {
  std::string_view zone;
  std::string_view rule;
  uint64_t table = 0;
  uint64_t generation = 0;
  uint64_t place_lo = 0;
  uint64_t place_hi = 0;
  uint64_t cost = 0;
  uint64_t state = 0;
  uint64_t nonce = 0;  // no two entries of a table have the same and a seal
  uint64_t seal = 0;   // 0: its own edge alone can settle it
};

constexpr size_t kMaxReceiptEntries = 128;
constexpr size_t kMaxReceiptNameBytes = 64;
// Room for kMaxReceiptEntries with the longest names.
constexpr size_t kMaxReceiptBytes = 1 + kMaxReceiptEntries * (2 + 2 * kMaxReceiptNameBytes + 64);

// The bytes of an entry. REQUIRES: names have at most kMaxReceiptNameBytes.
constexpr size_t receipt_entry_size(const ReceiptEntry& entry) noexcept {
  return 2 + entry.zone.size() + entry.rule.size() + 64;
}
// Writes the version, or an entry; returns the end of what was written.
char* begin_receipt(char* out) noexcept;
char* write_receipt_entry(char* out, const ReceiptEntry& entry) noexcept;

// Reads entry by entry.
class ReceiptReader {
 public:
  // Nothing is read of one that is too long or of another version.
  explicit ReceiptReader(std::string_view receipt) noexcept;
  // False at the end, or at what is no entry; good() tells which.
  bool next(ReceiptEntry& entry) noexcept;
  bool good() const noexcept { return good_; }

 private:
  std::string_view rest_;
  size_t count_ = 0;
  bool has_seals_ = true;
  bool good_ = true;
};

// A receipt of its entries that have a seal; empty: it has none, or cannot be read.
std::string sealed_part(std::string_view receipt);

}  // namespace penstock::wire
