// Lessee: one Nginx worker's dealings with the Redis of one shared zone.
//
//   a request ──held──▶ paid, without Redis
//             ──known empty──▶ refused, without Redis
//             ──else──▶ it waits ──┐ those that wait for the same are asked for together, and all
//                                  │ that is to be asked in one turn of the loop goes out as one
//             units in its hand ◀──┘ or none: judged anew, it is paid, or refused; at `timeout`,
//                                    or where Redis is away, it is judged without
//
// A call for a busy key also takes a batch to be held, which all workers of the host spend; before
// it is used up whoever spends of it asks for the next. What lies idle is given back.
//
// The invariants are the script's (shared/redis/scripts/lease.lua) and the table's
// (shared/limit/lease.h): what goes wrong here can only leave units unused until they lapse.
#pragma once

#include "ngx_module/conf/conf.h"
#include "ngx_module/lease/facts.h"
#include "ngx_module/lease/nginx_loop.h"
#include "ngx_module/lease/rates.h"
#include "shared/redis/servers.h"

namespace penstock {

class Lessee;
struct Group;

// One shared charge of a request, for which Redis is asked.
struct Hand {
  ngx_queue_t link;  // in its group, while `group` is set
  Group* group = nullptr;
  struct Wait* wait = nullptr;
  Hand* next = nullptr;
  const limit::Policy* policy = nullptr;
  limit::Hash128 key;
  uint64_t cost = 0;    // 0: Redis shall only tell what there is
  bool asked = false;   // a call for it is under way
  bool filled = false;  // the units are here, to be spent
  uint64_t left = 0;    // of a window or a log, then
  int64_t reset_ns = 0;
  uint64_t admitted = 0;  // the bucket's state then
};

// A request that has waited, or does.
struct Wait {
  ngx_http_request_t* r = nullptr;
  Lessee* lessee = nullptr;
  ngx_queue_t link;  // among those that wait, by their deadlines
  int64_t deadline_ns = 0;
  int64_t began_ns = 0;  // this round
  Hand* hands = nullptr;
  size_t open = 0;         // hands that are in groups
  unsigned rounds = 0;     // so often it was asked for
  bool suspended = false;  // `link` is in use
  bool failed = false;     // it is to be judged without Redis
  bool heard = false;      // it has waited to hear of keys
};

class Lessee final : public limit::Lessor, redis::Servers::User {
 public:
  explicit Lessee(Zone& zone) noexcept : zone_(zone) {}

  // In each worker process. `nginx`: as whom it is counted, one host however many of its zones
  // share. False: no memory.
  bool start(const limit::Hash128& nginx) noexcept;
  // At its end: what it knows to be held is given back.
  void stop() noexcept;

  // Before charges are decided: whether Redis is there.
  void look(bool without, int64_t now_ns) noexcept;
  // Adds a request's charge to those that are asked for.
  bool ask(Wait& wait, Hand& hand) noexcept;
  // It is asked for no more.
  void leave(Hand& hand) noexcept;
  void suspend(Wait& wait) noexcept;
  void end_wait(Wait& wait) noexcept;

  // A key was used, whatever came of it.
  void note_use(const limit::Hash128& key, uint64_t units, int64_t now_ns) noexcept {
    rates_->note(key, units, now_ns);
  }
  // So much was admitted without Redis, which is told of it when it is back.
  void note_alone(const limit::Policy& policy, const limit::Hash128& key, uint64_t units) noexcept {
    rates_->of(key).owed += policy.algorithm == limit::Algorithm::leased
                                ? units * (policy.gcra.interval / limit::kTicksPerRedisTick)
                                : units;
  }
  // So much was refused without Redis.
  void note_refused(const limit::Hash128& key, uint64_t units) noexcept {
    rates_->of(key).refused += units;
  }
  // A request of `cost` was paid, and so much is still held: asks for more where that is little.
  void take_more(const limit::Policy& policy, const limit::Hash128& key, uint64_t cost,
                 uint64_t left, int64_t now_ns) noexcept;
  // A request of `cost` was refused by what Redis said earlier. If that is a while ago Redis is
  // asked anew, for those who come later: other hosts may have given back what they did not use.
  void refresh(const limit::Policy& policy, const limit::Hash128& key, uint64_t cost,
               int64_t now_ns) noexcept;

  void correct(const limit::Policy& policy, const limit::Hash128& key, int64_t amount,
               uint64_t admitted) noexcept override;
  void renew(const limit::Policy& policy, const limit::Hash128& key, uint64_t units,
             uint64_t admitted) noexcept override;
  void forget(const limit::Policy& policy, const limit::Hash128& key) noexcept override;

  // Whether Redis can be asked for all keys.
  bool up(int64_t now_ns) const noexcept {
    return servers_->reach(now_ns) == redis::Servers::Reach::kAll;
  }
  bool is_lost(const limit::Hash128& key) const noexcept override;
  Facts& facts() const noexcept { return *facts_; }
  const Zone& zone() const noexcept { return zone_; }

 private:
  struct Call;
  struct Account;
  struct Watched;

  void on_ready(std::string_view who) noexcept override;
  void on_lost(std::string_view why) noexcept override;
  void on_hosts(uint64_t hosts) noexcept override;
  void on_fault(const redisReply& answer) noexcept;
  bool may_say() noexcept;
  void send_correction(const limit::Policy& policy, const limit::Hash128& key, int64_t correction,
                       uint64_t admitted, bool holds) noexcept;

  static void on_unsent(ngx_event_t* event) noexcept;
  static void on_deadline(ngx_event_t* event) noexcept;
  static void on_watch(ngx_event_t* event) noexcept;
  static void on_answer(void* call, const redisReply* answer) noexcept;

  void send_unsent() noexcept;
  bool send(Call* call) noexcept;
  void put_lease(Call& call, class Arguments& arguments) noexcept;
  void put_asked(Call& call, Arguments& arguments) noexcept;
  bool understood(const Call& call, const redisReply& answer) noexcept;
  void renewed(const Call& call, const redisReply& answer) noexcept;
  void told(const Call& call, const redisReply& answer) noexcept;
  void account(const Call& call, const Account& account) noexcept;
  void note_breaker(bool open) noexcept;
  void note_trip(int64_t took_ns) noexcept;
  void serve(Group& group, uint64_t served, const Hand& filled) noexcept;
  void give_back(const limit::Policy& policy, const limit::Hash128& key, uint64_t units,
                 uint64_t admitted) noexcept;
  void fail(Group& group) noexcept;
  void done(Hand& hand) noexcept;
  void wake(Wait& wait) noexcept;
  Group* group_of(const limit::Policy& policy, const limit::Hash128& key, uint64_t cost) noexcept;
  void drop(Group& group) noexcept;
  void queue(Group& group) noexcept;
  void set_deadline() noexcept;
  void watch(const limit::Policy& policy, const limit::Hash128& key) noexcept;
  void look_at_watched(bool all) noexcept;
  limit::Instant now() const noexcept;
  // Of what is used of the key now.
  uint64_t batch_of(const limit::Policy& policy, const limit::Hash128& key,
                    int64_t now_ns) noexcept;
  // As Redis knows this host.
  std::string_view host() const noexcept {
    return {reinterpret_cast<const char*>(host_), sizeof host_};
  }

  Zone& zone_;
  Facts* facts_ = nullptr;
  redis::Servers* servers_ = nullptr;
  Rates* rates_ = nullptr;
  ngx_rbtree_t groups_{};
  ngx_rbtree_node_t sentinel_{};
  ngx_queue_t unsent_{};   // groups to be asked for
  ngx_queue_t waits_{};    // by deadline: all wait equally long
  ngx_queue_t watched_{};  // keys of which some is held, by when they are looked at
  ngx_event_t unsent_event_{}, deadline_event_{}, watch_event_{};
  u_char host_[16];
  int64_t secret_due_ns_ = 0;  // when Redis is asked for it next (shared_secret.h)
  int64_t trip_ns_ = 0;        // of a call for a bucket, as they were lately
  int64_t spread_ns_ = 0;      // by how much they differed from that
  bool told_ = false;          // that it is away
  bool refreshing_ = false;
  bool open_ = true;  // the breaker, as facts_ has it
};

// Those of all zones, in a worker process.
ngx_int_t start_lessees(ngx_cycle_t* cycle) noexcept;
void stop_lessees(ngx_cycle_t* cycle) noexcept;

}  // namespace penstock
