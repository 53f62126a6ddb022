#include "worker/queue/order/fair_share.h"

#include <algorithm>
#include <utility>

#include "worker/queue/order/owners.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kUnit = uint64_t{1} << 16;  // of a tag, a unit of cost at weight 1

int64_t add_saturated(int64_t tag, uint64_t step) noexcept {
  const auto room = static_cast<uint64_t>(INT64_MAX - tag);
  return tag + static_cast<int64_t>(std::min(step, room));
}

}  // namespace

int64_t FairShare::start_of(const Flow& flow) const noexcept {
  return flow.waiting_ > 0 ? flow.end_ : std::max(now_, flow.end_);
}

const FairShare::Flow* FairShare::find(const Owner& owner) const noexcept {
  const Flow* flow = &owner.flows.first_;
  while (flow != nullptr && flow->share_ != this) {
    flow = flow->next_.get();
  }
  return flow;
}

// The owner's flow here; made when it is new.
FairShare::Flow& FairShare::flow_of(Owner& owner) {
  if (const Flow* const known = find(owner); known != nullptr) {
    return const_cast<Flow&>(*known);
  }
  Flow& first = owner.flows.first_;
  Flow* fresh = &first;
  if (first.share_ != nullptr) {
    auto another = std::make_unique<Flow>();
    another->next_ = std::move(first.next_);
    first.next_ = std::move(another);
    fresh = first.next_.get();
  }
  fresh->share_ = this;
  fresh->owner_ = &owner;
  ++flows_;
  return *fresh;
}

FairShare::Tags FairShare::arrive(Owner& owner, uint64_t cost, uint64_t weight) {
  Flow* const flow = &flow_of(owner);
  idle_.erase(*flow);
  weight = std::clamp<uint64_t>(weight, 1, kMaxWeight);
  const bool goes_on = flow->waiting_ > 0 || flow->end_ > now_;
  if (weight != flow->weight_ || !goes_on) {
    flow->weight_ = static_cast<uint32_t>(weight);
    flow->rest_ = 0;
  }
  const int64_t start = start_of(*flow);
  const uint64_t scaled = std::clamp<uint64_t>(cost, 1, kMaxCost) * kUnit + flow->rest_;
  flow->rest_ = scaled % weight;
  flow->end_ = add_saturated(start, scaled / weight);
  ++flow->jobs_;
  ++flow->waiting_;
  ++jobs_;
  return {flow, static_cast<uint64_t>(start), static_cast<uint64_t>(flow->end_)};
}

uint64_t FairShare::next_start(const Owner* owner) const noexcept {
  const Flow* const flow = owner != nullptr ? find(*owner) : nullptr;
  return static_cast<uint64_t>(flow == nullptr ? now_ : start_of(*flow));
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
  --jobs_;
  if (flow.jobs_ == 0 && (flow.end_ <= now_ || jobs_ == 0)) {
    forget(flow);
  } else if (flow.jobs_ == 0) {
    idle_.set(flow, flow.end_);
  }
  if (idle_.size() > kMaxIdle) {
    forget(static_cast<Flow&>(*idle_.first()));
  }
  if (jobs_ == 0) {
    while (idle_.size() > 0) {
      forget(static_cast<Flow&>(*idle_.last()));
    }
    idle_ = {};  // gives memory back
    now_ = 0;
  }
}

void FairShare::forget(Flow& flow) noexcept {
  idle_.erase(flow);
  --flows_;
  Owner& owner = *flow.owner_;
  if (&flow == &owner.flows.first_) {
    auto others = std::move(flow.next_);
    flow = {};
    flow.next_ = std::move(others);
  } else {
    std::unique_ptr<Flow>* link = &owner.flows.first_.next_;
    while (link->get() != &flow) {
      link = &(*link)->next_;
    }
    *link = std::move(flow.next_);
  }
  owners_.release(owner);
}

}  // namespace penstock::queue
