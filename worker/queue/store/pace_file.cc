#include "worker/queue/store/pace_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

#include "worker/queue/store/mapped_file.h"

namespace penstock::queue {

struct PaceFile::Layout {
  static constexpr uint64_t kMagic = 0x3145434150545350;  // "PSTPACE1"
  struct Place {
    limit::Hash128 name;
    PaceRecord record;
  };
  uint64_t magic = kMagic;
  int64_t steady_ns = 0;
  int64_t wall_ns = 0;
  Place places[kPlaces];

  bool is_sound() const {
    return magic == kMagic && std::all_of(places, places + kPlaces, [](const Place& place) {
             return place.record.first <= place.record.end;
           });
  }
  // So much later by the steady clock, and none of it in the future.
  void shift(int64_t by_ns, int64_t now_ns) {
    for (Place& place : places) {
      for (PaceRecord::Entry& entry : place.record.entries) {
        entry.until_ns = std::min(entry.until_ns + by_ns, now_ns);
        entry.since_ns = std::min(entry.since_ns + by_ns, entry.until_ns);
      }
    }
  }
};

PaceFile::PaceFile() {
  void* const memory =
      ::mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  layout_ = memory == MAP_FAILED ? nullptr : static_cast<Layout*>(memory);
}

PaceFile::~PaceFile() {
  if (layout_ != nullptr) {
    ::munmap(layout_, sizeof(Layout));
  }
}

PaceFile::PaceFile(PaceFile&& other) noexcept { *this = std::move(other); }

PaceFile& PaceFile::operator=(PaceFile&& other) noexcept {
  std::swap(layout_, other.layout_);
  std::swap(used_, other.used_);
  return *this;
}

Result<PaceFile> PaceFile::open(const std::string& path, int64_t steady_ns, int64_t wall_ns) {
  const auto memory = map_file(path, sizeof(Layout));
  if (!memory) {
    return memory.error();
  }
  PaceFile opened;
  ::munmap(opened.layout_, sizeof(Layout));
  opened.layout_ = static_cast<Layout*>(*memory);
  Layout& layout = *opened.layout_;
  if (!layout.is_sound()) {
    new (&layout) Layout();
  } else if (steady_ns < layout.steady_ns) {  // the machine has started anew
    const int64_t away_ns = std::max<int64_t>(0, wall_ns - layout.wall_ns);
    layout.shift(steady_ns - away_ns - layout.steady_ns, steady_ns);
  } else {
    layout.shift(0, steady_ns);
  }
  opened.note_time(steady_ns, wall_ns);
  return opened;
}

PaceRecord* PaceFile::find(const limit::Hash128& name) {
  if (layout_ == nullptr) {
    return nullptr;
  }
  const auto last_use = [](const Layout::Place& place) {
    return place.record.end == 0
               ? 0
               : place.record.entries[(place.record.end - 1) % PaceRecord::kEntries].until_ns;
  };
  Layout::Place* found = nullptr;
  for (size_t i = 0; i < kPlaces; ++i) {
    Layout::Place& place = layout_->places[i];
    if (place.name == name) {
      found = &place;
      break;
    }
    if (!used_[i] && (found == nullptr || last_use(place) < last_use(*found))) {
      found = &place;
    }
  }
  if (found == nullptr) {
    return nullptr;
  }
  if (!(found->name == name)) {
    found->record = PaceRecord();
    found->name = name;
  }
  used_[found - layout_->places] = true;
  return &found->record;
}

void PaceFile::forget_users() { std::fill(std::begin(used_), std::end(used_), false); }

void PaceFile::note_time(int64_t steady_ns, int64_t wall_ns) {
  if (layout_ != nullptr) {
    layout_->steady_ns = steady_ns;
    layout_->wall_ns = wall_ns;
  }
}

}  // namespace penstock::queue
