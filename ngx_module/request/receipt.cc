#include "ngx_module/request/receipt.h"

#include <utility>

#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

constexpr ngx_msec_t kRenewMs = limit::kLeaseNs / 2 / 1'000'000;

bool is_lease(const Paid& paid) noexcept { return paid.rule().kind == RuleKind::kConcurrency; }

void give_back(limit::Table& table, Paid& paid, const limit::Instant& now) noexcept {
  limit::refund_one(table, paid.bound->policy, paid.hash, paid.cost, paid.admitted, now);
  paid.cost = 0;
}

// A cost is counted once, under however many limits it was charged: true for each unit's first.
class Once {
 public:
  bool operator()(const Paid& paid) noexcept {
    const auto unit = static_cast<size_t>(paid.rule().unit);
    return !is_lease(paid) && !std::exchange(seen_[unit], true);
  }

 private:
  bool seen_[kUnits] = {};
};

// A running mean over some sixteen requests.
void learn_hold(const Counter& counter, int64_t held_ns) noexcept {
  int64_t& usual = counter.usual_hold_ns;
  usual = usual == 0 ? held_ns : usual + (held_ns - usual) / 16;
}

template <class Do>
void for_each(Receipt& receipt, const Do& act) noexcept {
  for (const PaidTogether* each = receipt.latest; each != nullptr; each = each->earlier) {
    const limit::Instant now = instant(*each->table);
    for (Paid& paid : each->paid) {
      if (paid.cost != 0) {
        act(*each->table, paid, now);
      }
    }
  }
}

// `served`: they were held for as long as a request takes, and not only until it was refused.
void end_leases(Receipt& receipt, bool served) noexcept {
  if (!receipt.held) {
    return;
  }
  ngx_queue_remove(&receipt.link);
  receipt.held = false;
  for_each(receipt, [&](limit::Table& table, Paid& paid, const limit::Instant& now) noexcept {
    if (!is_lease(paid)) {
      return;
    }
    if (served) {
      learn_hold(*paid.bound->counter, monotonic_ns() - receipt.since_ns);
    }
    give_back(table, paid, now);
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
          std::span<const limit::Charge> charges, std::span<const Judged> judged) noexcept {
  auto* memory = static_cast<std::byte*>(
      ngx_palloc(pool, sizeof(PaidTogether) + charges.size() * sizeof(Paid)));
  if (memory == nullptr) {
    return false;
  }
  auto* paid = reinterpret_cast<Paid*>(memory + sizeof(PaidTogether));
  Once once;
  for (const PaidTogether* each = receipt.latest; each != nullptr; each = each->earlier) {
    for (const Paid& p : each->paid) {
      if (p.cost != 0) {
        once(p);
      }
    }
  }
  size_t count = 0;
  bool leases = false;
  for (size_t i = 0; i < charges.size(); ++i) {
    const limit::Charge& charge = charges[i];
    if (charge.charged) {
      new (paid + count) Paid{judged[i].bound,
                              judged[i].limit,
                              charge.hash,
                              charge.cost,
                              {charge.decision.next_state, table.renewed().generation()},
                              judged[i].of_tier};
      leases = leases || is_lease(paid[count]);
      if (once(paid[count])) {
        count_cost(main, judged[i].rule().unit, CostEvent::kReserved, charge.cost);
      }
      ++count;
    }
  }
  receipt.latest = new (memory) PaidTogether{receipt.latest, &table, {paid, count}};
  receipt.main = &main;
  if (leases && !receipt.held) {
    receipt.held = true;
    receipt.since_ns = monotonic_ns();
    ngx_queue_insert_tail(&main.process->leases, &receipt.link);
  }
  return true;
}

void settle(Receipt& receipt, const Usage& usage) noexcept {
  Once once;
  for_each(receipt, [&](limit::Table& table, Paid& paid, const limit::Instant& now) noexcept {
    if (is_lease(paid) || paid.rule().unit == Unit::kRequests) {
      return;
    }
    const uint64_t used = paid.rule().unit == Unit::kTokens ? usage.tokens : usage.gpu_ms;
    limit::settle_one(table, paid.bound->policy, paid.hash, paid.cost, used, paid.admitted, now);
    const bool counts = once(paid);
    if (counts) {
      count_cost(*receipt.main, paid.rule().unit, CostEvent::kSettled, used);
    }
    if (counts && used < paid.cost) {
      count_cost(*receipt.main, paid.rule().unit, CostEvent::kRefunded, paid.cost - used);
    }
    paid.cost = 0;
  });
}

void refund(Receipt& receipt, bool requests) noexcept {
  Once once;
  for_each(receipt, [&](limit::Table& table, Paid& paid, const limit::Instant& now) noexcept {
    if (!is_lease(paid) && (requests || paid.rule().unit != Unit::kRequests)) {
      if (once(paid)) {
        count_cost(*receipt.main, paid.rule().unit, CostEvent::kRefunded, paid.cost);
      }
      give_back(table, paid, now);
    }
  });
}

void renew(Receipt& receipt) noexcept {
  for_each(receipt, [&](limit::Table& table, Paid& paid, const limit::Instant& now) noexcept {
    if (is_lease(paid)) {
      paid.admitted.state = limit::renew_one(table, paid.bound->policy, paid.hash, paid.cost,
                                             paid.admitted.state, now);
    }
  });
}

void hand_over(Receipt& receipt) noexcept {
  if (receipt.held) {
    ngx_queue_remove(&receipt.link);
    receipt.held = false;
  }
  receipt.latest = nullptr;
}

void release(Receipt& receipt) noexcept { end_leases(receipt, true); }

void undo(Receipt& receipt) noexcept {
  refund(receipt, true);
  end_leases(receipt, false);
}

size_t as_given_back(const Receipt& receipt, limit::Decision* decisions, Judged* judged) noexcept {
  size_t count = 0;
  if (receipt.latest == nullptr) {
    return 0;
  }
  const limit::Table& table = *receipt.latest->table;
  for (const Paid& paid : receipt.latest->paid) {
    if (paid.cost != 0 && paid.limit != nullptr && count < kMaxCharges) {
      decisions[count] = limit::peek_refunded(table, paid.bound->policy, paid.hash, paid.cost,
                                              paid.admitted, instant(table));
      judged[count] = {paid.bound, paid.limit, &decisions[count], paid.cost, paid.of_tier,
                       false,      false};
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
