#include "ngx_module/lease/lessee.h"

#include <algorithm>
#include <utility>

#include "ngx_module/lease/arguments.h"
#include "ngx_module/lease/lessee_parts.h"
#include "ngx_module/lease/shared_secret.h"
#include "shared/redis/answer.h"

namespace penstock {
namespace {

using redis::is_numbers;
using redis::number_of;

constexpr int64_t kLifeMs = 2000;  // of a lease
constexpr int64_t kMarginMs = 50;  // by which its host ends it earlier: clocks differ
constexpr auto kTicksPerRedisTick = static_cast<int64_t>(limit::kTicksPerRedisTick);

// Where others use all there is, a busy key asks no more often than this: what comes meanwhile is
// taken at once then.
uint64_t pause_ticks(const limit::Policy& policy) noexcept {
  constexpr uint64_t kMostTicks = 10'000'000 * limit::kTicksPerNs;
  return std::min(policy.gcra.tolerance / 4, kMostTicks);
}

}  // namespace

limit::Instant Lessee::now() const noexcept { return instant(*zone_.table); }

// ---- its life

bool Lessee::start(const limit::Hash128& nginx) noexcept {
  const Sharing& sharing = *zone_.sharing;
  facts_ = &facts_of(sharing);
  incarnation = facts_->incarnation;
  without = sharing.without;
  ngx_rbtree_init(&groups_, &sentinel_, ngx_rbtree_insert_value);
  for (ngx_queue_t* queue : {&unsent_, &waits_, &watched_}) {
    ngx_queue_init(queue);
  }
  const auto set = [this](ngx_event_t& event, ngx_event_handler_pt handler) {
    event.handler = handler;
    event.data = this;
    event.log = ngx_cycle->log;
  };
  set(unsent_event_, on_unsent);
  set(deadline_event_, on_deadline);  // requests that wait are waited for
  set(watch_event_, on_watch);
  watch_event_.cancelable = 1;

  redis::Settings settings;
  settings.database = static_cast<int>(sharing.database);
  settings.user = view(sharing.user);
  settings.password = view(sharing.password);
  settings.prefix = view(sharing.prefix);
  ngx_snprintf(host_, sizeof host_, "%016xL", incarnation.lo);
  u_char nginx_host[sizeof host_];
  ngx_snprintf(nginx_host, sizeof nginx_host, "%016xL", nginx.lo);
  settings.host = host();
  settings.counts_as.assign(reinterpret_cast<const char*>(nginx_host), sizeof nginx_host);
  settings.patience_ms = static_cast<int64_t>(sharing.timeout);
  rates_ = new (std::nothrow) Rates;
  redis::Whereabouts where;
  for (const RedisAddress& address : sharing.addresses) {
    where.addresses.push_back({std::string(view(address.path)), std::string(view(address.ip)),
                               static_cast<int>(address.port)});
  }
  where.master = view(sharing.sentinel);
  servers_ = new (std::nothrow) redis::Servers(
      std::move(settings), std::move(where),
      []() -> std::unique_ptr<redis::Loop> { return std::make_unique<NginxLoop>(); }, *this);
  if (rates_ == nullptr || servers_ == nullptr) {
    return false;
  }
  note_breaker(true);
  servers_->start();
  return true;
}

void Lessee::stop() noexcept {
  if (servers_ == nullptr) {
    return;
  }
  look_at_watched(true);
  told_ = true;  // it is no news that it ends
  servers_->leave();
  facts_->breakers[ngx_process_slot].store(Breaker::kNone);
  delete servers_;
  delete rates_;
  servers_ = nullptr;
  for (ngx_event_t* event : {&deadline_event_, &watch_event_}) {
    if (event->timer_set) {
      ngx_del_timer(event);
    }
  }
}

void Lessee::on_ready(std::string_view who) noexcept {
  note_breaker(false);
  secret_due_ns_ = monotonic_ns() + kSecretEveryNs;
  ask_secret(zone_, *servers_);
  if (told_) {
    told_ = false;
    ngx_str_t text = str(who);
    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "zone \"%V\": its limits are shared again, by %V", &zone_.name, &text);
  }
}

// All workers of the host together say it once a minute.
bool Lessee::may_say() noexcept {
  constexpr int64_t kEveryNs = 60 * kNsPerSec;
  int64_t said_ns = facts_->said_ns.load();
  const int64_t at_ns = monotonic_ns();
  return ngx_exiting == 0 && ngx_terminate == 0 && ngx_quit == 0 &&
         (said_ns == 0 || at_ns - said_ns >= kEveryNs) &&
         facts_->said_ns.compare_exchange_strong(said_ns, at_ns);
}

void Lessee::on_lost(std::string_view why) noexcept {
  constexpr const char* kInstead[] = {"this host goes by its own share of them",
                                      "requests pass without them", "requests are refused"};
  facts_->count(Fact::kLost);
  note_breaker(true);
  if (!may_say()) {
    return;
  }
  told_ = true;
  ngx_str_t text = str(why);
  ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                "zone \"%V\": %sits limits are not shared now, %s: %V", &zone_.name,
                servers_->reach(monotonic_ns()) == redis::Servers::Reach::kNone ? "" : "some of ",
                kInstead[static_cast<size_t>(without)], &text);
}

// An answer that is not one: of this key alone.
void Lessee::on_fault(const redisReply& answer) noexcept {
  facts_->count(Fact::kFaults);
  if (!may_say()) {
    return;
  }
  const bool other_time = answer.type == REDIS_REPLY_ARRAY && answer.elements == 2;
  ngx_str_t text = str(answer.type == REDIS_REPLY_ERROR ? std::string_view(answer.str, answer.len)
                       : other_time ? "its clock and this host's differ by more than a window"
                                    : "what is not understood");
  ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                "zone \"%V\": a limit is not shared now: %V says: %V", &zone_.name,
                &zone_.sharing->text, &text);
}

void Lessee::on_hosts(uint64_t count) noexcept {
  facts_->hosts.store(count, std::memory_order_relaxed);
  if (const int64_t at_ns = monotonic_ns(); at_ns >= secret_due_ns_) {
    secret_due_ns_ = at_ns + kSecretEveryNs;
    ask_secret(zone_, *servers_);
  }
}

void Lessee::look(bool alone, int64_t now_ns) noexcept {
  hosts = std::max<uint64_t>(facts_->hosts.load(std::memory_order_relaxed), 1);
  const redis::Servers::Reach reach = servers_->reach(now_ns);
  const bool open = reach != redis::Servers::Reach::kAll;
  if (open != open_) {
    note_breaker(open);
  }
  away = alone || reach == redis::Servers::Reach::kNone;
  some_away = reach == redis::Servers::Reach::kSome;
}

bool Lessee::is_lost(const limit::Hash128& key) const noexcept {
  return !servers_->reaches(KeyName(key), monotonic_ns());
}

// Whatever becomes of it, the call is answered: at once, if it cannot be sent.
bool Lessee::send(Call* call) noexcept {
  using redis::Script;
  const limit::Policy& policy = call->policy;
  Rates::Key& known = rates_->of(call->key);
  if (call->correction == 0) {
    call->owed = std::exchange(known.owed, 0);
    call->refused = std::exchange(known.refused, 0);
  }
  Arguments arguments;
  arguments.number(0);
  Script script = Script::kLease;
  if (policy.algorithm == limit::Algorithm::leased) {
    put_lease(*call, arguments);
  } else {
    script = is_log(policy) ? Script::kLog : Script::kWindow;
    put_asked(*call, arguments);
  }
  facts_->count(Fact::kTrips);
  const bool sent = servers_->call(script, KeyName(servers_->prefix(), policy, call->key),
                                   arguments.words(), on_answer, call);
  if (!sent) {
    on_answer(call, nullptr);
  }
  return sent;
}

void Lessee::put_lease(Call& call, Arguments& arguments) noexcept {
  const limit::GcraPolicy& gcra = call.policy.gcra;
  const limit::Instant at = now();
  const uint64_t told = limit::told_of(*zone_.table, call.policy, call.key);
  // What was told is later than true by a trip at most: the longest that one is waited for.
  const uint64_t from =
      limit::gcra_ticks(at.steady_ns + static_cast<int64_t>(zone_.sharing->timeout) * kNsPerMs);
  call.sent_ns = at.steady_ns;
  arguments.add(host());
  arguments.number(gcra.interval / limit::kTicksPerRedisTick);
  arguments.number(gcra.burst);
  arguments.number(kLifeMs * 16'000);
  arguments.number(call.renews ? at.steady_ns / 1000 : 0);
  arguments.number(call.renewal.units);
  arguments.number(call.renewal.back);
  arguments.number(call.waiting);
  arguments.number(call.each);
  arguments.number(call.renews ? call.batch : 0);
  arguments.number(gcra.burst > 3 ? 1 : 0);
  arguments.number(call.correction + static_cast<int64_t>(call.owed));
  arguments.number(gcra.debt / limit::kTicksPerRedisTick);
  arguments.number((told > from ? told - from : 0) / limit::kTicksPerRedisTick);
  arguments.number(rates_->of(call.key).born);
  arguments.number(gcra.delay / limit::kTicksPerRedisTick);
}

void Lessee::put_asked(Call& call, Arguments& arguments) noexcept {
  const limit::Policy& policy = call.policy;
  arguments.number(policy.limit);
  arguments.number(call.waiting);
  arguments.number(call.each);
  arguments.number(call.correction + static_cast<int64_t>(call.owed));
  const uint64_t known = limit::known_used(*zone_.table, policy, call.key, now());
  if (is_log(policy)) {
    call.logged = facts_->logged.fetch_add(1) + 1;
    arguments.call_name(host(), call.corrected >> kUnitBits);
    arguments.number(call.corrected & ((uint64_t{1} << kUnitBits) - 1));
    arguments.number(policy.length_ns / 1000);
    arguments.call_name(host(), call.logged);
    arguments.number(call.holds ? 1 : 0);
    arguments.number(is_concurrency(policy) ? 0 : known);
    return;
  }
  arguments.number(call.corrected);
  const bool slides = policy.alone == limit::Algorithm::sliding_window;
  arguments.number(slides ? limit::span_ns(policy.window.span) / kNsPerMs : 0);
  arguments.number(known);
  int64_t begins_ns[4];
  limit::window_begins(policy.window.span, now().wall_ns, begins_ns);
  for (const int64_t begin_ns : begins_ns) {
    arguments.number(begin_ns / kNsPerMs);
  }
}

void Lessee::on_answer(void* context, const redisReply* answer) noexcept {
  auto* call = static_cast<Call*>(context);
  Lessee& self = *call->lessee;
  Group* group = call->group;
  if (group != nullptr) {
    group->under_way = false;
  }
  self.refreshing_ = self.refreshing_ && !call->refreshes;
  if (answer == nullptr || !self.understood(*call, *answer)) {
    self.rates_->of(call->key).owed += call->owed;
    self.rates_->of(call->key).refused += call->refused;
    // What is held stays so, and is told anew by the next call.
    if (call->renews) {
      limit::end_renewal(*self.zone_.table, call->policy, call->key, call->renewal, true, 0,
                         call->renewal.end_ms, self.now());
    }
    if (answer != nullptr && (answer->type == REDIS_REPLY_ERROR || !call->renews)) {
      self.on_fault(*answer);
    }
    if (group != nullptr) {
      self.fail(*group);
      group = nullptr;
    }
  }
  if (group != nullptr && !group->queued) {
    if (ngx_queue_empty(&group->hands)) {
      self.drop(*group);
    } else {  // others have come meanwhile
      self.queue(*group);
    }
  }
  ngx_free(call);
}

// Whether it is an answer to the script; if so it has taken effect.
bool Lessee::understood(const Call& call, const redisReply& answer) noexcept {
  const bool leased = call.policy.algorithm == limit::Algorithm::leased;
  if (!is_numbers(answer, leased ? 9 : 6) || number_of(answer, 0) > call.waiting ||
      (leased && number_of(answer, 1) > call.batch)) {
    return false;
  }
  rates_->of(call.key).heard_ns = monotonic_ns();
  leased ? renewed(call, answer) : told(call, answer);
  return true;
}

// Of a window or a log.
void Lessee::told(const Call& call, const redisReply& answer) noexcept {
  const limit::Instant at = now();
  Hand filled;
  filled.left = number_of(answer, 1);
  filled.reset_ns = static_cast<int64_t>(number_of(answer, 3)) * kNsPerMs;
  account(call,
          {.over = number_of(answer, 5), .room = filled.left + number_of(answer, 0) * call.each});
  filled.admitted = is_log(call.policy) ? call.logged << kUnitBits : number_of(answer, 4);
  // When one of a concurrency comes free, nobody knows.
  const auto wait_ms = static_cast<int64_t>(number_of(answer, 2));
  limit::note_asked(*zone_.table, call.policy, call.key, call.each,
                    is_concurrency(call.policy) ? std::min<int64_t>(wait_ms, 1) : wait_ms,
                    filled.left, filled.reset_ns / kNsPerMs, at);
  if (call.group != nullptr) {
    serve(*call.group, number_of(answer, 0), filled);
  }
}

void Lessee::renewed(const Call& call, const redisReply& answer) noexcept {
  const limit::Instant at = now();
  const uint64_t served = number_of(answer, 0);
  const uint64_t granted = number_of(answer, 1);
  const uint64_t ahead = number_of(answer, 2) * limit::kTicksPerRedisTick;
  const bool valid = number_of(answer, 3) != 0;
  Rates::Key& known = rates_->of(call.key);
  known.born = number_of(answer, 4);
  const limit::GcraPolicy& gcra = call.policy.gcra;
  account(call, {.granted = granted,
                 .lapsed = number_of(answer, 6),
                 .spent = number_of(answer, 7),
                 .over = number_of(answer, 8),
                 .room = served * call.each + granted +
                         limit::gcra_units(gcra, gcra.tolerance - std::min(gcra.tolerance, ahead)),
                 .valid = valid});
  note_trip(at.steady_ns - call.sent_ns);
  uint64_t told = ahead;
  const bool short_of = served < call.waiting || granted < call.batch;
  if (short_of && batch_of(call.policy, call.key, monotonic_ns()) >= call.each) {
    told = std::max(told, pause_ticks(call.policy) + call.policy.gcra.tolerance -
                              call.each * call.policy.gcra.interval);
  }
  limit::note_told(*zone_.table, call.policy, call.key, told, at);
  if (call.renews) {
    limit::end_renewal(*zone_.table, call.policy, call.key, call.renewal, valid, granted,
                       call.sent_ns / kNsPerMs + kLifeMs - kMarginMs, at);
    if (granted > 0) {
      watch(call.policy, call.key);
    }
  }
  if (call.group != nullptr) {
    Hand filled;
    // The first's: what the others and the batch took comes behind it.
    const uint64_t behind = (std::max<uint64_t>(served, 1) - 1) * call.each + granted;
    filled.admitted =
        limit::gcra_ticks(at.steady_ns) + ahead - std::min(ahead, behind * gcra.interval);
    serve(*call.group, served, filled);
  }
}

void Lessee::correct(const limit::Policy& policy, const limit::Hash128& key, int64_t amount,
                     uint64_t admitted) noexcept {
  // Of ticks, what is owed is rounded up, what is given back down.
  const int64_t correction =
      policy.algorithm == limit::Algorithm::leased
          ? (amount > 0 ? amount + kTicksPerRedisTick - 1 : amount) / kTicksPerRedisTick
          : amount;
  if (servers_ == nullptr || correction == 0 ||
      (correction < 0 && admitted == 0 && is_log(policy))) {
    return;
  }
  if (!servers_->ready(KeyName(key))) {
    rates_->of(key).owed += static_cast<uint64_t>(std::max<int64_t>(correction, 0));
    return;
  }
  send_correction(policy, key, correction, admitted, false);
}

void Lessee::renew(const limit::Policy& policy, const limit::Hash128& key, uint64_t units,
                   uint64_t admitted) noexcept {
  if (servers_ != nullptr && servers_->ready(KeyName(key)) && admitted != 0) {
    send_correction(policy, key, -static_cast<int64_t>(units), admitted, true);
  }
}

void Lessee::send_correction(const limit::Policy& policy, const limit::Hash128& key,
                             int64_t correction, uint64_t admitted, bool holds) noexcept {
  if (void* memory = allocate(sizeof(Call)); memory != nullptr) {
    auto* call = new (memory) Call{.lessee = this, .policy = policy, .key = key};
    call->correction = correction;
    call->corrected = policy.algorithm == limit::Algorithm::leased ? 0 : admitted;
    call->holds = holds;
    send(call);
  }
}

void Lessee::forget(const limit::Policy& policy, const limit::Hash128& key) noexcept {
  if (servers_ != nullptr) {
    Arguments arguments;
    arguments.number(policy.length_ns / kNsPerMs);
    servers_->call(
        redis::Script::kReset, KeyName(servers_->prefix(), policy, key), arguments.words(),
        [](void*, const redisReply*) noexcept {}, nullptr);
  }
}

// ---- all of them

ngx_int_t start_lessees(ngx_cycle_t* cycle) noexcept {
  const MainConf* main = main_conf(cycle);
  if (main == nullptr) {
    return NGX_OK;
  }
  const Facts* nginx = nullptr;  // one host, however many of its zones share
  for (const Zone* zone : main->zones) {
    if (zone->sharing == nullptr) {
      continue;
    }
    nginx = nginx != nullptr ? nginx : &facts_of(*zone->sharing);
    if (!static_cast<Lessee*>(zone->lessor)->start(nginx->incarnation)) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

void stop_lessees(ngx_cycle_t* cycle) noexcept {
  const MainConf* main = main_conf(cycle);
  if (main == nullptr) {
    return;
  }
  for (const Zone* zone : main->zones) {
    if (zone->sharing != nullptr) {
      static_cast<Lessee*>(zone->lessor)->stop();
    }
  }
}

}  // namespace penstock
