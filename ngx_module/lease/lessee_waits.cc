#include "ngx_module/lease/lessee_parts.h"

#include <algorithm>

namespace penstock {
namespace {

bool same(const limit::Hash128& a, const limit::Hash128& b) noexcept {
  return a.lo == b.lo && a.hi == b.hi;
}

ngx_rbtree_key_t tree_key(const limit::Hash128& key, uint64_t cost, uint64_t delay) noexcept {
  return key.lo ^ cost * 0x9E3779B97F4A7C15U ^ delay * 0xC2B2AE3D27D4EB4FU;
}

}  // namespace

// ---- asking for requests that wait

Group* Lessee::group_of(const limit::Policy& policy, const limit::Hash128& key,
                        uint64_t cost) noexcept {
  const ngx_rbtree_key_t in_tree = tree_key(key, cost, policy.gcra.delay);
  for (ngx_rbtree_node_t* node = groups_.root; node != &sentinel_;
       node = in_tree < node->key ? node->left : node->right) {
    auto* group = reinterpret_cast<Group*>(node);
    if (node->key == in_tree && same(group->key, key) && group->cost == cost &&
        group->policy.gcra.delay == policy.gcra.delay) {
      return group;
    }
  }
  void* memory = allocate(sizeof(Group));
  if (memory == nullptr) {
    return nullptr;
  }
  auto* group = new (memory) Group{.policy = policy, .key = key, .cost = cost};
  ngx_queue_init(&group->hands);
  group->node.key = in_tree;
  ngx_rbtree_insert(&groups_, &group->node);
  return group;
}

void Lessee::drop(Group& group) noexcept {
  if (group.queued) {
    ngx_queue_remove(&group.unsent);
  }
  ngx_rbtree_delete(&groups_, &group.node);
  ngx_free(&group);
}

// It is sent at the end of this turn of the loop.
void Lessee::queue(Group& group) noexcept {
  group.queued = true;
  ngx_queue_insert_tail(&unsent_, &group.unsent);
  ngx_post_event(&unsent_event_, &ngx_posted_events);
}

bool Lessee::ask(Wait& wait, Hand& hand) noexcept {
  Group* group = group_of(*hand.policy, hand.key, hand.cost);
  if (group == nullptr) {
    return false;
  }
  hand.group = group;
  hand.asked = false;
  ++wait.open;
  ngx_queue_insert_tail(&group->hands, &hand.link);
  if (!group->queued && !group->under_way) {
    queue(*group);
  }
  return true;
}

void Lessee::leave(Hand& hand) noexcept {
  if (hand.group == nullptr) {
    return;
  }
  Group& group = *hand.group;
  ngx_queue_remove(&hand.link);
  hand.group = nullptr;
  --hand.wait->open;
  if (ngx_queue_empty(&group.hands) && !group.under_way) {
    drop(group);
  }
}

void Lessee::on_unsent(ngx_event_t* event) noexcept {
  static_cast<Lessee*>(event->data)->send_unsent();
}

void Lessee::send_unsent() noexcept {
  const limit::Instant at = now();
  const int64_t now_ns = monotonic_ns();
  while (!ngx_queue_empty(&unsent_)) {
    Group& group = *ngx_queue_data(ngx_queue_head(&unsent_), Group, unsent);
    ngx_queue_remove(&group.unsent);
    group.queued = false;
    void* memory = allocate(sizeof(Call));
    if (memory == nullptr) {
      fail(group);
      continue;
    }
    auto* call = new (memory) Call{.lessee = this,
                                   .policy = group.policy,
                                   .key = group.key,
                                   .each = std::max(group.cost, uint64_t{1})};
    for (ngx_queue_t* q = ngx_queue_head(&group.hands); q != ngx_queue_sentinel(&group.hands);
         q = ngx_queue_next(q)) {
      if (is_log(group.policy) && (call->waiting + 1) * group.cost > uint64_t{1} << kUnitBits) {
        break;  // the rest by the next call
      }
      (ngx_queue_data(q, Hand, link))->asked = true;
      call->waiting += group.cost == 0 ? 0 : 1;
    }
    call->group = &group;
    group.under_way = true;
    if (group.policy.algorithm != limit::Algorithm::leased) {
      send(call);
      continue;
    }
    const uint64_t batch = batch_of(group.policy, group.key, now_ns);
    call->batch = group.cost == 0 || batch < group.cost ? 0 : batch;  // else it pays for nobody
    // A little that is held, and not enough for any of these, goes back first.
    const uint64_t held = limit::held_of(*zone_.table, group.policy, group.key, at).units;
    const bool give_back = held > 0 && held < group.cost;
    if (call->batch > 0 || give_back) {
      call->renews = limit::begin_renewal(*zone_.table, group.policy, group.key, give_back,
                                          at.steady_ns / kNsPerMs + kLockMs, at, call->renewal);
    }
    call->batch = call->renews ? call->batch - std::min(call->batch, call->renewal.units) : 0;
    send(call);
  }
}

// ---- asking for nobody

void Lessee::refresh(const limit::Policy& policy, const limit::Hash128& key, uint64_t cost,
                     int64_t now_ns) noexcept {
  constexpr int64_t kEveryNs = kNsPerSec;
  Rates::Key& known = rates_->of(key);
  if (refreshing_ || now_ns - known.heard_ns < kEveryNs) {
    return;  // one at a time: a flood of refused keys is no flood of calls
  }
  if (void* memory = allocate(sizeof(Call)); memory != nullptr) {
    auto* call = new (memory) Call{.lessee = this, .policy = policy, .key = key, .each = cost};
    known.heard_ns = now_ns;
    refreshing_ = call->refreshes = true;
    send(call);
  }
}

// ---- answers

// The first that were asked for get what there is; the rest know now that there is no more.
void Lessee::serve(Group& group, uint64_t served, const Hand& filled) noexcept {
  // Of a log each has units of its own, and of a bucket a time.
  const uint64_t unit = is_log(group.policy) ? group.cost
                        : group.policy.algorithm == limit::Algorithm::leased
                            ? group.cost * group.policy.gcra.interval
                            : 0;
  uint64_t next = 0;
  ngx_queue_t* q = ngx_queue_head(&group.hands);
  group.under_way = true;  // it stays until all are told
  while (q != ngx_queue_sentinel(&group.hands)) {
    Hand& hand = *ngx_queue_data(q, Hand, link);
    q = ngx_queue_next(q);
    if (!hand.asked) {
      continue;
    }
    if (next < served) {
      hand.filled = true;
      hand.left = filled.left;
      hand.reset_ns = filled.reset_ns;
      hand.admitted = filled.admitted + unit * next++;
    }
    done(hand);
  }
  group.under_way = false;
  if (next < served) {  // those have gone away meanwhile
    give_back(group.policy, group.key, (served - next) * group.cost, filled.admitted + unit * next);
  }
}

// Units that were asked for and are not spent.
void Lessee::give_back(const limit::Policy& policy, const limit::Hash128& key, uint64_t units,
                       uint64_t admitted) noexcept {
  limit::refund_one(*zone_.table, policy, key, units, admitted, now());
}

void Lessee::fail(Group& group) noexcept {
  group.under_way = true;
  while (!ngx_queue_empty(&group.hands)) {
    Hand& hand = *ngx_queue_data(ngx_queue_head(&group.hands), Hand, link);
    hand.wait->failed = true;
    done(hand);
  }
  drop(group);
}

void Lessee::done(Hand& hand) noexcept {
  Wait& wait = *hand.wait;
  leave(hand);
  if (wait.open == 0) {
    wake(wait);
  }
}

// ---- requests that wait

// Most wait for the first time, and longest of all.
void Lessee::suspend(Wait& wait) noexcept {
  wait.suspended = true;
  wait.began_ns = monotonic_ns();
  ngx_queue_t* before = ngx_queue_last(&waits_);
  while (before != ngx_queue_sentinel(&waits_) &&
         (ngx_queue_data(before, Wait, link))->deadline_ns > wait.deadline_ns) {
    before = ngx_queue_prev(before);
  }
  ngx_queue_insert_after(before, &wait.link);
  if (before == ngx_queue_sentinel(&waits_) || !deadline_event_.timer_set) {
    set_deadline();
  }
}

void Lessee::set_deadline() noexcept {
  if (deadline_event_.timer_set) {
    ngx_del_timer(&deadline_event_);  // else Nginx keeps one that is nearly as late
  }
  if (ngx_queue_empty(&waits_)) {
    return;
  }
  const Wait& first = *ngx_queue_data(ngx_queue_head(&waits_), Wait, link);
  const int64_t after_ms = (first.deadline_ns - monotonic_ns() + kNsPerMs - 1) / kNsPerMs;
  ngx_add_timer(&deadline_event_, static_cast<ngx_msec_t>(std::max<int64_t>(after_ms, 1)));
}

void Lessee::on_deadline(ngx_event_t* event) noexcept {
  auto& self = *static_cast<Lessee*>(event->data);
  const int64_t now_ns = monotonic_ns();
  while (!ngx_queue_empty(&self.waits_)) {
    Wait& wait = *ngx_queue_data(ngx_queue_head(&self.waits_), Wait, link);
    if (wait.deadline_ns > now_ns) {
      break;
    }
    wait.failed = true;
    self.facts_->count(Fact::kTimedOut);
    for (Hand* hand = wait.hands; hand != nullptr; hand = hand->next) {
      self.leave(*hand);
    }
    self.wake(wait);
  }
  self.set_deadline();
}

// It is judged anew, at the end of this turn of the loop.
void Lessee::wake(Wait& wait) noexcept {
  if (!wait.suspended) {
    return;
  }
  wait.suspended = false;
  facts_->waits.observe(static_cast<uint64_t>(monotonic_ns() - wait.began_ns));
  ngx_queue_remove(&wait.link);
  ngx_post_event(wait.r->connection->write, &ngx_posted_events);
}

// The request is over, or has no use for what it waited for.
void Lessee::end_wait(Wait& wait) noexcept {
  if (wait.suspended) {
    wait.suspended = false;
    ngx_queue_remove(&wait.link);
  }
  for (Hand* hand = wait.hands; hand != nullptr; hand = hand->next) {
    leave(*hand);
    if (hand->filled) {
      hand->filled = false;
      give_back(*hand->policy, hand->key, hand->cost, hand->admitted);
    }
  }
}

}  // namespace penstock
