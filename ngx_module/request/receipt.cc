#include "ngx_module/request/receipt.h"

#include <utility>

#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

constexpr ngx_msec_t kRenewMs = limit::kLeaseNs / 2 / 1'000'000;

bool is_lease(const OpenCharge& charge) noexcept {
  return charge.rule().kind == RuleKind::kConcurrency;
}

void give_back(limit::Table& table, OpenCharge& charge, const limit::Instant& now) noexcept {
  limit::refund_one(table, charge.bound->policy, charge.hash, charge.cost, charge.admitted, now);
  charge.cost = 0;
}

// A cost is counted once, under however many limits it was charged: true for each unit's first.
class Once {
 public:
  bool operator()(const OpenCharge& charge) noexcept {
    const auto unit = static_cast<size_t>(charge.rule().unit);
    return !is_lease(charge) && !std::exchange(seen_[unit], true);
  }

 private:
  bool seen_[kUnits] = {};
};

// A running mean over some sixteen requests.
void learn_lease(const Counter& counter, int64_t lasted_ns) noexcept {
  int64_t& usual = counter.usual_lease_ns;
  usual = usual == 0 ? lasted_ns : usual + (lasted_ns - usual) / 16;
}

template <class Do>
void for_each(Receipt& receipt, const Do& act) noexcept {
  for (const OpenCharges* each = receipt.latest; each != nullptr; each = each->earlier) {
    const limit::Instant now = instant(*each->table);
    for (OpenCharge& charge : each->charges) {
      if (charge.cost != 0) {
        act(*each->table, charge, now);
      }
    }
  }
}

// `served`: they were held for as long as a request takes, and not only until it was refused.
void end_leases(Receipt& receipt, bool served) noexcept {
  if (!receipt.has_leases) {
    return;
  }
  ngx_queue_remove(&receipt.link);
  receipt.has_leases = false;
  for_each(receipt,
           [&](limit::Table& table, OpenCharge& charge, const limit::Instant& now) noexcept {
             if (!is_lease(charge)) {
               return;
             }
             if (served) {
               learn_lease(*charge.bound->counter, monotonic_ns() - receipt.since_ns);
             }
             give_back(table, charge, now);
           });
}

void renew_leases(ngx_event_t* event) noexcept {
  auto& process = *static_cast<Process*>(event->data);
  for (ngx_queue_t* q = ngx_queue_head(&process.leases); q != ngx_queue_sentinel(&process.leases);
       q = ngx_queue_next(q)) {
    renew(*ngx_queue_data(q, Receipt, link));
  }
  ngx_add_timer(event, kRenewMs);
}

void stop_process(void* data) noexcept {
  auto* event = static_cast<ngx_event_t*>(data);
  if (event->timer_set) {
    ngx_del_timer(event);
  }
}

}  // namespace

limit::Instant instant(const limit::Table& table) noexcept {
  // Nginx's own time is renewed each turn of its loop; between, the steady clock carries it on.
  static ngx_msec_t taken_at = 0;
  static int64_t wall_ahead = 0;
  const int64_t steady = monotonic_ns();
  if (taken_at != ngx_current_msec) {
    taken_at = ngx_current_msec;
    wall_ahead = realtime_ns() - steady;
  }
  return table.instant(steady, steady + wall_ahead);
}

bool keep(ngx_pool_t* pool, Receipt& receipt, limit::Table& table, const MainConf& main,
          std::span<const limit::Charge> charges, std::span<const ChargeResult> results) noexcept {
  auto* memory = static_cast<std::byte*>(
      ngx_palloc(pool, sizeof(OpenCharges) + charges.size() * sizeof(OpenCharge)));
  if (memory == nullptr) {
    return false;
  }
  auto* open = reinterpret_cast<OpenCharge*>(memory + sizeof(OpenCharges));
  Once once;
  for (const OpenCharges* each = receipt.latest; each != nullptr; each = each->earlier) {
    for (const OpenCharge& charge : each->charges) {
      if (charge.cost != 0) {
        once(charge);
      }
    }
  }
  size_t count = 0;
  bool leases = false;
  for (size_t i = 0; i < charges.size(); ++i) {
    const limit::Charge& charge = charges[i];
    if (charge.charged) {
      new (open + count) OpenCharge{results[i].bound,
                                    results[i].limit,
                                    charge.hash,
                                    charge.cost,
                                    {charge.decision.next_state, table.renewed().generation()},
                                    results[i].of_tier};
      leases = leases || is_lease(open[count]);
      if (once(open[count])) {
        count_cost(main, results[i].rule().unit, CostEvent::kReserved, charge.cost);
      }
      ++count;
    }
  }
  receipt.latest = new (memory) OpenCharges{receipt.latest, &table, {open, count}};
  receipt.main = &main;
  if (leases && !receipt.has_leases) {
    receipt.has_leases = true;
    receipt.since_ns = monotonic_ns();
    ngx_queue_insert_tail(&main.process->leases, &receipt.link);
  }
  return true;
}

void settle(Receipt& receipt, const Usage& usage) noexcept {
  Once once;
  for_each(
      receipt, [&](limit::Table& table, OpenCharge& charge, const limit::Instant& now) noexcept {
        if (is_lease(charge) || charge.rule().unit == Unit::kRequests) {
          return;
        }
        const uint64_t used = charge.rule().unit == Unit::kTokens ? usage.tokens : usage.gpu_ms;
        limit::settle_one(table, charge.bound->policy, charge.hash, charge.cost, used,
                          charge.admitted, now);
        const bool counts = once(charge);
        if (counts) {
          count_cost(*receipt.main, charge.rule().unit, CostEvent::kSettled, used);
        }
        if (counts && used < charge.cost) {
          count_cost(*receipt.main, charge.rule().unit, CostEvent::kRefunded, charge.cost - used);
        }
        charge.cost = 0;
      });
}

void refund(Receipt& receipt, bool requests) noexcept {
  Once once;
  for_each(receipt,
           [&](limit::Table& table, OpenCharge& charge, const limit::Instant& now) noexcept {
             if (!is_lease(charge) && (requests || charge.rule().unit != Unit::kRequests)) {
               if (once(charge)) {
                 count_cost(*receipt.main, charge.rule().unit, CostEvent::kRefunded, charge.cost);
               }
               give_back(table, charge, now);
             }
           });
}

void renew(Receipt& receipt) noexcept {
  for_each(receipt,
           [&](limit::Table& table, OpenCharge& charge, const limit::Instant& now) noexcept {
             if (is_lease(charge)) {
               charge.admitted.state = limit::renew_one(table, charge.bound->policy, charge.hash,
                                                        charge.cost, charge.admitted.state, now);
             }
           });
}

void hand_over(Receipt& receipt) noexcept {
  if (receipt.has_leases) {
    ngx_queue_remove(&receipt.link);
    receipt.has_leases = false;
  }
  receipt.latest = nullptr;
}

void release(Receipt& receipt) noexcept { end_leases(receipt, true); }

void give_leases_back(Receipt& receipt) noexcept {
  for_each(receipt,
           [&](limit::Table& table, OpenCharge& charge, const limit::Instant& now) noexcept {
             if (is_lease(charge)) {
               give_back(table, charge, now);
             }
           });
}

uint64_t reserved_of(const Receipt& receipt, Unit unit) noexcept {
  uint64_t most = 0;
  for (const OpenCharges* each = receipt.latest; each != nullptr; each = each->earlier) {
    for (const OpenCharge& charge : each->charges) {
      if (!is_lease(charge) && charge.rule().unit == unit) {
        most = std::max(most, charge.cost);
      }
    }
  }
  return most;
}

void undo(Receipt& receipt) noexcept {
  refund(receipt, true);
  end_leases(receipt, false);
}

size_t as_they_stand(const Receipt& receipt, bool given_back, limit::Decision* decisions,
                     ChargeResult* results) noexcept {
  size_t count = 0;
  if (receipt.latest == nullptr) {
    return 0;
  }
  const limit::Table& table = *receipt.latest->table;
  for (const OpenCharge& charge : receipt.latest->charges) {
    if (charge.cost != 0 && charge.limit != nullptr && count < kMaxCharges) {
      decisions[count] =
          limit::peek_refunded(table, charge.bound->policy, charge.hash,
                               given_back ? charge.cost : 0, charge.admitted, instant(table));
      results[count] = {charge.bound, charge.limit, &decisions[count], charge.cost, charge.of_tier,
                        false,        false};
      ++count;
    }
  }
  return count;
}

ngx_int_t start_process(ngx_cycle_t* cycle) noexcept {
  MainConf* main = main_conf(cycle);
  if (main == nullptr) {
    return NGX_OK;
  }
  auto* event = static_cast<ngx_event_t*>(ngx_pcalloc(cycle->pool, sizeof(ngx_event_t)));
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cycle->pool, 0);
  main->process = make<Process>(cycle->pool);
  if (event == nullptr || cleanup == nullptr || main->process == nullptr) {
    return NGX_ERROR;
  }
  main->process->returns = make<limit::Returns>(cycle->pool);
  if (main->process->returns == nullptr) {
    return NGX_ERROR;
  }
  const auto* core =
      reinterpret_cast<ngx_core_conf_t*>(ngx_get_conf(cycle->conf_ctx, ngx_core_module));
  main->process->processes = ngx_max(core->worker_processes, 1);
  ngx_queue_init(&main->process->leases);
  main->process->renewal = event;
  event->handler = renew_leases;
  event->data = main->process;
  event->log = cycle->log;
  event->cancelable = 1;  // a worker that is to exit stays for its requests, not for this
  cleanup->handler = stop_process;
  cleanup->data = event;
  ngx_add_timer(event, kRenewMs);
  return NGX_OK;
}

}  // namespace penstock
