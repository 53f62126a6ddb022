#include "worker/queue/api/standing_orders.h"

#include <algorithm>

namespace penstock::queue {
namespace {

// The names of orders. Neither queues nor workers have a space in theirs.
constexpr char kFile[] = "file";
constexpr std::string_view kPaused = "paused ";
constexpr std::string_view kScaled = "scaled ";

}  // namespace

Result<StandingOrders::Found> StandingOrders::recover(uint64_t file) {
  Found found;
  if (store_ == nullptr) {
    return found;
  }
  auto orders = store_->orders();
  if (!orders) {
    return orders.error();
  }
  const auto of_file = orders->find(kFile);
  const bool same = of_file != orders->end() && static_cast<uint64_t>(of_file->second) == file;
  for (const auto& [name, value] : *orders) {
    if (name == kFile) {
      continue;
    }
    if (!same) {
      found.forgotten = true;
      set(name, std::nullopt);
    } else if (name.starts_with(kPaused)) {
      found.paused.push_back(name.substr(kPaused.size()));
    } else if (name.starts_with(kScaled)) {
      found.scaled[name.substr(kScaled.size())] =
          static_cast<uint32_t>(std::clamp<int64_t>(value, 0, UINT32_MAX));
    }
  }
  if (!same) {
    reloaded(file);
  }
  return found;
}

void StandingOrders::reloaded(uint64_t file) { set(kFile, static_cast<int64_t>(file)); }

void StandingOrders::paused(const std::string& queue, bool is) {
  set(std::string(kPaused) + queue, is ? std::optional<int64_t>(1) : std::nullopt);
}

void StandingOrders::scaled(const std::string& worker, std::optional<uint32_t> processes) {
  set(std::string(kScaled) + worker, processes);
}

void StandingOrders::set(const std::string& name, std::optional<int64_t> value) {
  if (store_ != nullptr) {
    store_->set_order(name, value);
  }
}

}  // namespace penstock::queue
