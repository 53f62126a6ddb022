#include "worker/queue/store/usage_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <utility>

#include "worker/queue/store/mapped_file.h"

namespace penstock::queue {

// `number` is written last: an entry that has it is whole.
struct alignas(256) UsageFile::Entry {
  std::atomic<uint64_t> number{0};  // 0: none
  int64_t hour = 0;
  uint64_t owner = 0;
  int64_t counts[kUsageCounts] = {};
  uint8_t queue_bytes = 0;
  uint8_t model_bytes = 0;
  char names[256 - (3 + kUsageCounts) * 8 - 2] = {};

  bool write(uint64_t its_number, const UsageRow& row) {
    const auto& [key, values] = row;
    if (key.queue.size() + key.model.size() > sizeof names) {
      return false;
    }
    number.store(0, std::memory_order_release);
    hour = key.hour;
    owner = key.owner;
    std::copy(values.begin(), values.end(), counts);
    queue_bytes = static_cast<uint8_t>(key.queue.size());
    model_bytes = static_cast<uint8_t>(key.model.size());
    std::memcpy(names, key.queue.data(), key.queue.size());
    std::memcpy(names + key.queue.size(), key.model.data(), key.model.size());
    number.store(its_number, std::memory_order_release);
    return true;
  }
  bool read(UsageRow& row) const {
    if (size_t{queue_bytes} + model_bytes > sizeof names || hour < 0) {
      return false;
    }
    row.key = {hour, owner, std::string(names, queue_bytes),
               std::string(names + queue_bytes, model_bytes)};
    std::copy(std::begin(counts), std::end(counts), row.counts.begin());
    return std::all_of(row.counts.begin(), row.counts.end(), [](int64_t count) {
      return count >= -3 * kMostUsage && count <= 3 * kMostUsage;
    });
  }
};

struct UsageFile::Layout {
  static constexpr uint64_t kMagic = 0x3147455341555350;  // "PSUSAGE1"
  alignas(256) uint64_t magic = kMagic;
  Entry entries[kEntries];
};

UsageFile::~UsageFile() {
  if (layout_ != nullptr) {
    ::munmap(layout_, sizeof(Layout));
  }
}

UsageFile::UsageFile(UsageFile&& other) noexcept { *this = std::move(other); }

UsageFile& UsageFile::operator=(UsageFile&& other) noexcept {
  std::swap(layout_, other.layout_);
  std::swap(first_, other.first_);
  std::swap(next_, other.next_);
  return *this;
}

Result<UsageFile> UsageFile::open(const std::string& path, uint64_t mark,
                                  std::vector<UsageRow>& left) {
  static_assert(sizeof(Entry) == 256 && sizeof(Layout) == 256 * (kEntries + 1));
  const auto memory = map_file(path, sizeof(Layout));
  if (!memory) {
    return memory.error();
  }
  UsageFile opened;
  opened.layout_ = static_cast<Layout*>(*memory);
  if (opened.layout_->magic != Layout::kMagic) {
    new (opened.layout_) Layout();
  }
  opened.next_ = std::max<uint64_t>(mark, 1);
  opened.first_ = opened.next_;
  for (const Entry& entry : opened.layout_->entries) {
    const uint64_t number = entry.number.load(std::memory_order_acquire);
    // None can be further ahead than there are places.
    if (number < opened.first_ || number - opened.first_ >= kEntries) {
      continue;
    }
    opened.next_ = std::max(opened.next_, number + 1);
    if (UsageRow row; entry.read(row)) {
      left.push_back(std::move(row));
    }
  }
  return opened;
}

bool UsageFile::add(const UsageRow& row) {
  if (layout_ == nullptr || held() == kEntries ||
      !layout_->entries[next_ % kEntries].write(next_, row)) {
    return false;
  }
  ++next_;
  return true;
}

}  // namespace penstock::queue
