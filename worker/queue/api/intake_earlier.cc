// Intake: the answer of an earlier request that asked the same, in place of none.
//
// Whose it may be, the edge says: of the same owner, or of all (wire::Earlier). It is answered from
// the store, whatever became of penstockd since; only what completed is kept, and no worker hears
// of the request.
#include <algorithm>

#include "worker/queue/api/intake.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/shared_jobs/shared_record.h"

namespace penstock::queue {
namespace {

constexpr int64_t kMsPerSecond = 1000;

}  // namespace

// An owner that is nobody has no answers of its own.
void Intake::hash_earlier(const wire::Submit& submit, Order& order) const {
  const auto whose = static_cast<wire::Earlier>(submit.earlier);
  const bool own = whose == wire::Earlier::kOwn && !submit.owner.empty();
  if ((!own && whose != wire::Earlier::kShared) ||
      (dispatcher_.store() == nullptr && order.shared == nullptr)) {
    return;
  }
  std::string asked = own ? "own" : "shared";
  for (const std::string_view part : {own ? submit.owner : std::string_view(), submit.query}) {
    const uint64_t size = part.size();
    asked.append(reinterpret_cast<const char*>(&size), sizeof size).append(part);
  }
  append_asked(asked, submit);
  order.record.earlier = limit::siphash13_128(secret_in(order.shared), asked);
  order.earlier_if_busy = submit.earlier_when == static_cast<uint64_t>(wire::EarlierWhen::kBusy) &&
                          submit.callback.empty() && order.record.not_before_ms == 0;
  if (submit.earlier_age_s > 0) {
    const auto age_s = static_cast<int64_t>(std::min<uint64_t>(submit.earlier_age_s, 1U << 31));
    order.earliest_ms = dispatcher_.wall_ms() - age_s * kMsPerSecond;
  }
}

bool Intake::is_kept_for_others(const Order& order) const {
  return !order.async && !order.durable && order.record.earlier != limit::Hash128{} &&
         dispatcher_.keeps_up();
}

// True: the request is not let in, and has been seen to.
bool Intake::turn_away(Caller& caller, uint64_t id, const wire::Submit& submit,
                       const JobOptions& options, const Order& order, size_t bytes) {
  const bool only = submit.earlier_when == static_cast<uint64_t>(wire::EarlierWhen::kOnly);
  const auto refusal = only ? std::nullopt : busy(order, bytes);
  if (!only && !refusal) {
    return false;
  }
  const wire::Failed failed = only ? wire::Failed{.status = 429,
                                                  .code = wire::kNoEarlierAnswer,
                                                  .message = "Nothing was kept of such a request."}
                                   : refusal->failed();
  const bool waits = options.callback.empty() && options.not_before_ms == 0;
  if (order.record.earlier == limit::Hash128{} || !waits || (!only && !order.earlier_if_busy)) {
    refuse(caller, id, failed);
  } else {
    seek_earlier(dispatcher_.subscribers().add(caller, id, Waiter::Kind::kQuestion), order, failed);
  }
  return true;
}

// Of a job that no worker has seen.
void Intake::turn_away(Job& job, const Order& order, const wire::Failed& failed) {
  while (order.earlier_if_busy && job.waiters() != nullptr) {
    Waiter& waiter = *job.waiters();
    Subscribers::detach(waiter);
    seek_earlier(waiter, order, failed);
  }
  refuse_all(job, failed);
}

// Answers the waiter, or fails it as it would have been.
void Intake::seek_earlier(Waiter& waiter, const Order& order, const wire::Failed& failed) {
  if (order.shared == nullptr && dispatcher_.store()->pending() >= Store::kMostPending) {
    refuse(*waiter.caller, waiter.id, failed);
    return dispatcher_.subscribers().leave(waiter);
  }
  Subscribers::ask(waiter);
  waiter.duplicate = true;
  look_up_earlier(
      order, [this, &waiter, earliest_ms = order.earliest_ms, owner = order.owner,
              lane = order.lane, charged = order.earlier_if_busy, failed = wire::Failed(failed),
              code = std::string(failed.code), message = std::string(failed.message)](
                 const std::optional<KeptAnswer>& kept) mutable {
        if (!dispatcher_.subscribers().answered(waiter)) {
          return;
        }
        const JobEnd* const end = kept ? &kept->job.end : nullptr;
        if (end == nullptr || end->http_status / 100 != 2 || end->finished_ms < earliest_ms ||
            end->expires_ms <= dispatcher_.keeping_ms()) {
          failed.code = code;
          failed.message = message;
          refuse(*waiter.caller, waiter.id, failed);
        } else {
          dispatcher_.count(*lane->queue, Metrics::Event::kEarlier);
          if (charged) {
            dispatcher_.count_joined(*lane, owner.lo);
          }
          const bool own = owner != limit::Hash128{} && kept->job.owner == owner;
          dispatcher_.replies().earlier(waiter, *kept, own, dispatcher_.wall_ms());
        }
        dispatcher_.subscribers().leave(waiter);
      });
}

void Intake::look_up_earlier(const Order& order,
                             std::function<void(std::optional<KeptAnswer>)> then) {
  if (order.shared == nullptr) {
    return dispatcher_.store()->find_earlier(order.record.earlier, std::move(then));
  }
  SharedQueue& queue = *order.shared;
  const auto looked = [then](const SharedOrder::Answer<SharedOrder::Known>& known) {
    KeptAnswer kept;
    std::string_view body;
    const bool there = known && decode(known.value, kept.job, body) && kept.job.end.answered() &&
                       kept.job.stored_name.empty();
    kept.body = body;
    then(there ? std::optional(std::move(kept)) : std::nullopt);
  };
  const auto found = [then, looked, &queue](const SharedOrder::Answer<std::string>& id) {
    if (!id || id.value.empty() || !queue.look(id.value, 0, looked)) {
      then(std::nullopt);
    }
  };
  if (!queue.order().earlier(hex(order.record.earlier), found)) {
    then(std::nullopt);
  }
}

}  // namespace penstock::queue
