#include "worker/queue/fair_share.h"

#include <algorithm>

namespace penstock::queue {
namespace {

constexpr uint64_t kUnit = uint64_t{1} << 16;  // of a tag, a unit of cost at weight 1
constexpr size_t kManyBuckets = 4096;

int64_t add_saturated(int64_t tag, uint64_t step) noexcept {
  const auto room = static_cast<uint64_t>(INT64_MAX - tag);
  return tag + static_cast<int64_t>(std::min(step, room));
}

}  // namespace

int64_t FairShare::start_of(const Flow& flow) const noexcept {
  return flow.waiting_ > 0 ? flow.end_ : std::max(now_, flow.end_);
}

FairShare::Tags FairShare::arrive(uint64_t owner, uint64_t cost, uint64_t weight) {
  Flow& flow = flows_[owner];
  idle_.erase(flow);
  flow.owner_ = owner;
  weight = std::clamp<uint64_t>(weight, 1, kMaxWeight);
  const bool goes_on = flow.waiting_ > 0 || flow.end_ > now_;
  if (weight != flow.weight_ || !goes_on) {
    flow.weight_ = weight;
    flow.rest_ = 0;
  }
  const int64_t start = start_of(flow);
  const uint64_t scaled = std::clamp<uint64_t>(cost, 1, kMaxCost) * kUnit + flow.rest_;
  flow.rest_ = scaled % weight;
  flow.end_ = add_saturated(start, scaled / weight);
  ++flow.jobs_;
  ++flow.waiting_;
  ++jobs_;
  return {&flow, static_cast<uint64_t>(start), static_cast<uint64_t>(flow.end_)};
}

uint64_t FairShare::next_start(uint64_t owner) const noexcept {
  const auto found = flows_.find(owner);
  return static_cast<uint64_t>(found == flows_.end() ? now_ : start_of(found->second));
}

void FairShare::raise(uint64_t virtual_time) noexcept {
  now_ = std::max(now_, static_cast<int64_t>(virtual_time));
  while (idle_.next_ns() <= now_) {
    forget(static_cast<Flow&>(*idle_.first()));
  }
}

void FairShare::take(const Tags& tags) noexcept {
  tags.flow->served_ = std::max(tags.flow->served_, static_cast<int64_t>(tags.end));
  withdraw(tags);
  raise(tags.start);
}

void FairShare::come_back(const Tags& tags) noexcept { ++tags.flow->waiting_; }

void FairShare::withdraw(const Tags& tags) noexcept {
  if (--tags.flow->waiting_ == 0) {
    tags.flow->end_ = tags.flow->served_;
  }
}

void FairShare::leave(const Tags& tags) noexcept {
  Flow& flow = *tags.flow;
  --flow.jobs_;
  if (--jobs_ == 0) {
    idle_ = {};
    if (flows_.bucket_count() > kManyBuckets) {
      flows_ = {};  // gives memory back; clear() would go through all of it each time
    } else {
      flows_.clear();
    }
    now_ = 0;
  } else if (flow.jobs_ == 0 && flow.end_ <= now_) {
    forget(flow);
  } else if (flow.jobs_ == 0) {
    idle_.set(flow, flow.end_);
    if (idle_.size() > kMaxIdle) {
      forget(static_cast<Flow&>(*idle_.first()));
    }
  }
}

void FairShare::forget(Flow& flow) noexcept {
  idle_.erase(flow);
  flows_.erase(flow.owner_);
}

}  // namespace penstock::queue
