// UsageFile: what jobs used whose promise is their caller's connection, until the ledger has it on
// disk: STATE/usage.
//
//   file = magic, 8 | zeros up to 256 | entries, 256 bytes each, one for each end
//
// The file is mapped, so that what was counted is there whenever the process is killed, and nobody
// waits for the disk on its account. The kernel writes it in its own time: after a power cut what
// was counted since the ledger was last written may be missing. Entries have numbers, one more each
// time, and the ledger keeps the number up to which it has them (StoredUsage::mark()): so each is
// added once. What is read back may be hostile: what is no entry is passed over.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/result.h"
#include "worker/queue/store/usage.h"

namespace penstock::queue {

class UsageFile {
 public:
  static constexpr size_t kEntries = 8192;

  UsageFile() = default;  // without a file: nothing is kept
  ~UsageFile();
  UsageFile(UsageFile&& other) noexcept;
  UsageFile& operator=(UsageFile&& other) noexcept;

  // `mark`: entries with a number below have been added to the ledger. The others are `left`.
  static Result<UsageFile> open(const std::string& path, uint64_t mark,
                                std::vector<UsageRow>& left);

  // False: there is no room for it.
  bool add(const UsageRow& row);
  // The number of the next entry.
  uint64_t next() const { return next_; }
  // Entries up to that number are in the ledger.
  void forget(uint64_t mark) { first_ = mark; }
  size_t held() const { return static_cast<size_t>(next_ - first_); }

 private:
  struct Entry;
  struct Layout;

  Layout* layout_ = nullptr;
  uint64_t first_ = 1;
  uint64_t next_ = 1;
};

}  // namespace penstock::queue
