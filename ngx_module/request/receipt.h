// Receipts: what a request was charged, so that it can be given back, settled, and released.
//
//   admitted ──▶ reserved ──DONE──▶ settled by what was used
//                   ├── the job failed, or was refused by the queue ──▶ given back
//                   ├── the caller left ──▶ settled by what was made for it until then
//                   └── this process dies ──▶ buckets flow back, windows end, leases lapse
//
// Leases (concurrency) are held until the request ends, and renewed meanwhile.
#pragma once

#include "ngx_module/nginx.h"

#include <algorithm>

#include "ngx_module/request/rate_headers.h"
#include "shared/base/clock.h"
#include "shared/limit/returns.h"

namespace penstock {

// One charge. `cost` is what is still charged; 0 once nothing is left to be done.
struct OpenCharge {
  const Bound* bound;
  const Limit* limit;  // nullptr, of a job's that was handed over
  limit::Hash128 hash;
  uint64_t cost;
  limit::Admitted admitted;
  bool of_tier;

  const Rule& rule() const noexcept { return *bound->counter->rule; }
};

// What one process keeps while it runs; made after the fork.
struct Process {
  ngx_queue_t leases;  // Receipt::link of requests that hold any
  ngx_event_t* renewal = nullptr;
  ngx_uint_t delayed = 0;             // requests that action=delay has wait
  limit::Returns* returns = nullptr;  // of those it has refused
  int64_t processes = 1;              // that refuse beside each other
};

// What one location's limits have charged at one stage, all in one zone.
struct OpenCharges {
  OpenCharges* earlier;
  limit::Table* table;
  std::span<OpenCharge> charges;
};

struct Receipt {
  ngx_queue_t link;  // REQUIRES: linked only while has_leases
  bool has_leases = false;
  int64_t since_ns = 0;  // steady
  const MainConf* main = nullptr;
  OpenCharges* latest = nullptr;
};

// What a job used in the end.
struct Usage {
  uint64_t tokens = 0;
  uint64_t gpu_ms = 0;
};
// No job is taken to have used more than this, whatever a message says: so no sum overflows.
constexpr uint64_t kMostUsed = uint64_t{1} << 40;
// What DONE or OVER says was used.
template <class Message>
Usage usage_of(const Message& said) noexcept {
  const uint64_t gpu_ms = said.device_ns / kNsPerMs + (said.device_ns % kNsPerMs != 0 ? 1 : 0);
  return {std::min(said.prompt_tokens, kMostUsed) + std::min(said.completion_tokens, kMostUsed),
          std::min(gpu_ms, kMostUsed)};
}

// Notes charges that were admitted. False when memory ran out.
bool keep(ngx_pool_t* pool, Receipt& receipt, limit::Table& table, const MainConf& main,
          std::span<const limit::Charge> charges, std::span<const ChargeResult> results) noexcept;

// Reservations of tokens and GPU time become what was used.
void settle(Receipt& receipt, const Usage& usage) noexcept;
// Reservations are given back; with `requests`, everything but leases is.
void refund(Receipt& receipt, bool requests) noexcept;
// Its leases are kept alive, or taken anew if they had lapsed.
void renew(Receipt& receipt) noexcept;
// What was charged belongs to a promised job now, or may do so: nothing of it is settled, given
// back or released here. If the job was not promised after all, the charges stand and the leases
// lapse.
void hand_over(Receipt& receipt) noexcept;
// Leases are given back: the request is over.
void release(Receipt& receipt) noexcept;
// The same of one whose leases this process does not renew.
void give_leases_back(Receipt& receipt) noexcept;
// What is still charged of a unit, under however many limits.
uint64_t reserved_of(const Receipt& receipt, Unit unit) noexcept;
// All is given back, leases too, as if it had not been charged.
void undo(Receipt& receipt) noexcept;

// How the limits of the latest place stand, or would if its charges were given back: for headers.
// `decisions` and `results` have room for kMaxCharges. Returns how many there are.
size_t as_they_stand(const Receipt& receipt, bool given_back, limit::Decision* decisions,
                     ChargeResult* results) noexcept;

// Called in each worker process.
ngx_int_t start_process(ngx_cycle_t* cycle) noexcept;

// Now, on the table's clocks. It reads the steady clock; the time of day is carried on from the
// last turn of the loop.
limit::Instant instant(const limit::Table& table) noexcept;

}  // namespace penstock
