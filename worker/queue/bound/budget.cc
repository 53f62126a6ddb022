#include "worker/queue/bound/budget.h"

#include <algorithm>
#include <vector>

namespace penstock::queue {

uint32_t Budget::free_slots() const {
  uint32_t least = UINT32_MAX;
  for (const Budget* each = this; each != nullptr; each = each->parent) {
    const uint32_t limit = each->limit();
    least = std::min(least, limit - std::min(limit, each->busy));
  }
  return least;
}

bool Budget::has_room(int64_t bytes) const {
  for (const Budget* each = this; each != nullptr; each = each->parent) {
    if (each->memory_bytes > 0 && bytes > each->memory_bytes - each->held_bytes) {
      return false;
    }
  }
  return true;
}

bool Budget::can_grant(int64_t bytes) const {
  const int64_t aside = std::max(set_aside_bytes, reserved_bytes);
  return memory_bytes == 0 || bytes <= memory_bytes - aside - (held_bytes - reserved_bytes);
}

void Claims::advance() {
  if (granting_) {  // whoever is told of a grant may change what is held
    return;
  }
  granting_ = true;
  std::vector<const Budget*> blocked;
  const auto first_full = [&](const Claim& claim) -> const Budget* {
    const Budget* full = nullptr;  // the widest
    for (const Budget* each = &claim.seat->budget_; each != nullptr; each = each->parent) {
      const bool behind = std::find(blocked.begin(), blocked.end(), each) != blocked.end();
      full = behind || !each->can_grant(claim.bytes) ? each : full;
    }
    return full;
  };
  for (auto at = claims_.begin(); at != claims_.end();) {
    if (const Budget* const full = first_full(*at); full != nullptr) {
      // One that can never be granted, as the bound was lowered, is in nobody's way.
      if (full->memory_bytes == 0 || at->bytes <= full->memory_bytes) {
        blocked.push_back(full);
      }
      ++at;
      continue;
    }
    const Claim claim = *at;
    at = claims_.erase(at);
    claim.seat->add_held(claim.bytes);
    claim.seat->claimant_->on_granted(claim.job, claim.bytes);
  }
  granting_ = false;
}

Seat::Seat(Budget& budget, Claims& claims) : budget_(budget), claims_(claims) {
  for (Budget* each = &budget_; each != nullptr; each = each->parent) {
    ++each->seats;
  }
}

Seat::~Seat() {
  release();
  for (Budget* each = &budget_; each != nullptr; each = each->parent) {
    --each->seats;
  }
}

void Seat::release() {
  withdraw_all();
  return_slots(busy_);
  add_reserved(-reserved_bytes_);
  return_bytes(static_cast<uint64_t>(held_bytes_));
}

void Seat::take_slot() { add_busy(1); }

void Seat::return_slots(uint64_t jobs) {
  add_busy(-static_cast<int64_t>(std::min<uint64_t>(jobs, busy_)));
}

bool Seat::claim(uint64_t job, int64_t bytes, Claimant& claimant) {
  if (std::any_of(claims_.claims_.begin(), claims_.claims_.end(), [&](const Claims::Claim& claim) {
        return claim.seat == this && claim.job == job;
      })) {
    return false;
  }
  claimant_ = &claimant;
  claims_.claims_.push_back({this, job, bytes});
  claims_.advance();
  return true;
}

void Seat::reserve(int64_t bytes) {
  add_reserved(bytes);
  add_held(bytes);
}

void Seat::withdraw(uint64_t job) {
  if (std::erase_if(claims_.claims_, [&](const Claims::Claim& claim) {
        return claim.seat == this && claim.job == job;
      }) > 0) {
    claims_.advance();  // it may have been in the others' way
  }
}

void Seat::withdraw_all() {
  std::erase_if(claims_.claims_, [&](const Claims::Claim& claim) { return claim.seat == this; });
  claims_.advance();
}

void Seat::return_bytes(uint64_t bytes) {
  add_held(-std::min(static_cast<int64_t>(std::min<uint64_t>(bytes, INT64_MAX)), held_bytes_));
  claims_.advance();
}

void Seat::add_busy(int64_t jobs) {
  busy_ = static_cast<uint32_t>(busy_ + jobs);
  for (Budget* each = &budget_; each != nullptr; each = each->parent) {
    each->busy = static_cast<uint32_t>(each->busy + jobs);
  }
}

void Seat::add_reserved(int64_t bytes) {
  reserved_bytes_ += bytes;
  for (Budget* each = &budget_; each != nullptr; each = each->parent) {
    each->reserved_bytes += bytes;
  }
}

void Seat::add_held(int64_t bytes) {
  held_bytes_ += bytes;
  for (Budget* each = &budget_; each != nullptr; each = each->parent) {
    each->held_bytes += bytes;
  }
}

}  // namespace penstock::queue
