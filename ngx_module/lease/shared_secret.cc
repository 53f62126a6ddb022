#include "ngx_module/lease/shared_secret.h"

#include <sys/random.h>

#include <algorithm>
#include <string>

#include "ngx_module/lease/facts.h"
#include "shared/redis/answer.h"

namespace penstock {
namespace {

bool is_shared(const Zone& zone) noexcept {
  return zone.sharing != nullptr && zone.secret.len == 0;
}

bool is_used(const Zone& zone) noexcept {
  return zone.signs_in ||
         std::any_of(zone.limits.begin(), zone.limits.end(), [](const Limit* limit) noexcept {
           return limit->action == Action::kChallenge;
         });
}

// What is charged may be a job's, and is sealed then.
bool seals(const Zone& zone) noexcept {
  return zone.sharing != nullptr &&
         !main_conf(const_cast<ngx_cycle_t*>(ngx_cycle))->sources.empty();
}

// The mutex of the facts, which Nginx unlocks for a worker that has died.
class Lock {
 public:
  explicit Lock(const Zone& zone) noexcept
      : mutex_(reinterpret_cast<ngx_slab_pool_t*>(zone.sharing->memory->shm.addr)->mutex) {
    ngx_shmtx_lock(&mutex_);
  }
  ~Lock() { ngx_shmtx_unlock(&mutex_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  ngx_shmtx_t& mutex_;
};

void learn(const Zone& zone, std::string_view text) noexcept {
  KnownSecret& known = facts_of(*zone.sharing).secret;
  const Lock lock(zone);
  const uint64_t turn = known.turn.load(std::memory_order_relaxed);
  if (turn != 0 && challenge::text_of(known.now) == text) {
    return;
  }
  known.before = known.now;
  std::copy(text.begin(), text.end(), known.now.begin());
  known.turn.store(turn + 1, std::memory_order_release);
}

// What one zone has signed is nothing to another of the same Redis.
challenge::Keys keys_by(const Zone& zone, const KnownSecret::Bytes& secret) noexcept {
  return challenge::make_keys(
      challenge::text_of(hmac(challenge::text_of(secret), view(zone.name))));
}

void on_answer(void* context, const redisReply* answer) noexcept {
  const auto& zone = *static_cast<const Zone*>(context);
  if (answer == nullptr) {
    return;
  }
  if (redis::is_text(*answer) && redis::text_of(*answer).size() == KnownSecret::Bytes{}.size()) {
    return learn(zone, redis::text_of(*answer));
  }
  static time_t said_s = 0;
  if (ngx_time() - said_s >= 60) {
    said_s = ngx_time();
    ngx_log_error(
        NGX_LOG_ERR, ngx_cycle->log, 0,
        "zone \"%V\": what %V has as the secret of challenges is none; passes are good on "
        "this host alone",
        &zone.name, &zone.sharing->text);
  }
}

}  // namespace

void ask_secret(Zone& zone, redis::Servers& servers) noexcept {
  if (!seals(zone) && (!is_shared(zone) || !is_used(zone))) {
    return;
  }
  KnownSecret::Bytes secret;
  {
    const KnownSecret& known = facts_of(*zone.sharing).secret;
    const Lock lock(zone);
    secret = known.now;
    if (known.turn.load(std::memory_order_relaxed) == 0 &&
        getrandom(secret.data(), secret.size(), 0) != static_cast<ssize_t>(secret.size())) {
      return;
    }
  }
  const std::string_view arguments[] = {challenge::text_of(secret)};
  servers.call(redis::Script::kSecret, std::string(servers.prefix()) + "challenge-secret",
               arguments, on_answer, &zone);
}

const ChallengeKeys& keys_of(Zone& zone) noexcept {
  ChallengeKeys& keys = zone.challenge_keys;
  if (!is_shared(zone)) {
    return keys;
  }
  const KnownSecret& known = facts_of(*zone.sharing).secret;
  if (known.turn.load(std::memory_order_acquire) == keys.turn) {
    return keys;
  }
  const Lock lock(zone);
  keys.turn = known.turn.load(std::memory_order_relaxed);
  keys.count = 0;
  keys.all[keys.count++] = keys_by(zone, known.now);
  keys.all[keys.count++] = keys.own;
  if (keys.turn > 1) {
    keys.all[keys.count++] = keys_by(zone, known.before);
  }
  return keys;
}

const limit::Secret* seal_key_of(Zone& zone) noexcept {
  if (!seals(zone)) {
    return nullptr;
  }
  const KnownSecret& known = facts_of(*zone.sharing).secret;
  if (known.turn.load(std::memory_order_acquire) != zone.seal_turn) {
    const Lock lock(zone);
    zone.seal_turn = known.turn.load(std::memory_order_relaxed);
    zone.seal_key = limit::derive_secret(limit::derive_secret(zone.key_secret, "receipts"),
                                         challenge::text_of(known.now));
  }
  return zone.seal_turn == 0 ? nullptr : &zone.seal_key;
}

}  // namespace penstock
