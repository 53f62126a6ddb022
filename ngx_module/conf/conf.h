// What nginx.conf says, as the module keeps it: zones, tiers, limits, and where requests go.
//
// All of it is made while the configuration is read, lives in the cycle's pool, and is constant
// once workers run.
//
// A limit has one word for each of its stages:
//
//   Rule          the terms as written, "10r/m burst=5": of a plan or one penstock_limit (rule.h)
//   Policy        the same in numbers, which shared/limit decides by
//   Counter       a rule in a zone
//   Limit         a penstock_limit line: whom to count, under which rules, and what it does
//   Bound         a counter as one limit charges it
//   Charge        one bound of one request: the table is asked for it (shared/limit/charge.h)
//   ChargeResult  a charge and what the table decided, as callers are told of it
//                 (request/charge_result.h)
//   OpenCharge    a charge that was made, until it is settled, given back or released
//                 (request/receipt.h)
#pragma once

#include "ngx_module/nginx.h"

#include <array>
#include <optional>

#include "ngx_module/conf/directive.h"
#include "ngx_module/conf/rule.h"
#include "ngx_module/conf/value.h"
#include "shared/challenge/keys.h"
#include "shared/challenge/load.h"
#include "shared/limit/charge.h"
#include "shared/limit/formula.h"
#include "shared/limit/lease.h"
#include "shared/wire/messages.h"

namespace penstock {

struct Counter;
struct Limit;
struct LimitMetrics;
struct QuotaLine;
struct Sharing;
struct VerifyLine;
struct ZoneStore;

// A counter as one limit charges it.
struct Bound {
  const Counter* counter = nullptr;
  limit::Policy policy;  // the rule's, with the limit's delay, and its name in the zone
};

// A rule in a zone: what a request is charged against.
//
// Its place in the table is the key's hash XOR the salt. The hash is keyed and 128 bits wide, so
// two counters meet no more often than two hashes would, and a key that several counters share is
// hashed once.
struct Counter {
  const Rule* rule = nullptr;
  Bound own;            // as it is charged where no limit says how
  limit::Hash128 salt;  // of name and unit, under the zone's secret: known once the memory is there
  LimitMetrics* metrics = nullptr;
  bool bound = false;                  // some limit charges it
  bool shared = false;                 // by hosts
  mutable int64_t usual_lease_ns = 0;  // of a lease, as this process has learned
  mutable uint64_t most_delay = 0;     // ticks: of all that count by it
  mutable challenge::Load challenged;  // of action=challenge, as this process has learned

  limit::Hash128 place_of(const limit::Hash128& key_hash) const noexcept {
    return {key_hash.lo ^ salt.lo, key_hash.hi ^ salt.hi};
  }
};

// What a zone's challenges and passes are signed by.
struct ChallengeKeys {
  challenge::Keys own;
  // The first signs; what any of them has signed is good.
  std::array<challenge::Keys, 3> all;
  size_t count = 0;
  uint64_t turn = 0;  // of what hosts share, as it was seen last (lease/shared_secret.h)

  const challenge::Keys& signing() const noexcept { return all[0]; }
  const challenge::Keys* begin() const noexcept { return all.data(); }
  const challenge::Keys* end() const noexcept { return all.data() + count; }
};

// penstock_zone: the shared memory that holds counters.
struct Zone {
  ngx_str_t name{};
  ngx_str_t file{};  // where the counters survive a restart; empty: nowhere
  ngx_shm_zone_t* shm = nullptr;
  ZoneStore* store = nullptr;
  Sharing* sharing = nullptr;         // redis=: with whom its limits are shared; nullptr: nobody
  limit::Lessor* lessor = nullptr;    // where they are
  std::optional<limit::Table> table;  // once the memory is there (not under nginx -t)
  limit::Secret key_secret;           // keys are hashed with it
  ngx_str_t secret{};                 // secret_file=: what challenges are signed by; empty: its own
  ChallengeKeys challenge_keys;
  limit::Secret seal_key;  // of what is charged under it in Redis (lease/shared_secret.h)
  uint64_t seal_turn = 0;  // as of ChallengeKeys; 0: it is not known yet
  bool signs_in = false;   // of penstock_sign_in
  PoolArray<Counter*> counters;
  PoolArray<Limit*> limits;  // that use it
  ngx_str_t conf_file{};     // where it stands
  ngx_uint_t conf_line = 0;
};

// penstock_tier: a plan.
struct Tier {
  ngx_str_t name{};
  ngx_str_t variant{};  // a label for metrics
  ngx_str_t docs{};     // where the plan is explained
  PoolArray<Rule*> rules;
  PoolArray<std::string_view> said;  // its other lines, each of which may stand once
  ngx_str_t policies{};              // of all rules, as RateLimit-Policy lists them
  int64_t priority = 0;
  uint64_t weight = 1;
  size_t index = 0;  // in MainConf::tiers
};

// Which answers carry RateLimit and its kind.
enum RateHeadersOn : ngx_uint_t { kRateHeadersAll, kRateHeadersRefused, kRateHeadersNone };

enum class Action : uint8_t { kReject, kDelay, kDegrade, kChallenge };

// When a limit is judged: before access modules such as auth_request, or after them.
enum class Stage : uint8_t { kPreaccess, kAccess };
constexpr size_t kStages = 2;

struct Bounds {
  PoolArray<Bound> all;
  bool reckoned = false;  // some count what is to be reckoned from the body: tokens, GPU time
  bool leases = false;    // some are held while the request lasts: concurrency

  const Bound* begin() const noexcept { return all.begin(); }
  const Bound* end() const noexcept { return all.end(); }
  const Bound& operator[](size_t i) const noexcept { return all[i]; }
};

// penstock_limit: counters that a key is charged against.
struct Limit {
  Zone* zone = nullptr;
  Value key;
  limit::Hash128 constant_hash;   // of a constant key
  Value tier;                     // kNone: one rule of its own
  Bounds bounds;                  // its own rule
  PoolArray<Bounds> tier_bounds;  // in the order of MainConf::tiers
  Action action = Action::kReject;
  ngx_msec_t max_delay = 0;
  ngx_str_t degrade_field{};  // degrade_to=FIELD=VALUE: "model", or a field of the body
  ngx_str_t degrade_value{};
  bool to_earlier = false;  // degrade_to=earlier: an answer that was kept
  Bounds verified;          // of action=challenge: what counts a key that has shown a pass
  bool dry_run = false;
  bool shared = false;  // by hosts
  bool pages = false;   // holds for pages of ours, too
  Stage stage = Stage::kPreaccess;
  const void* server = nullptr;  // the server{} or http{} where it stands
  ngx_str_t key_text{};          // as written
  bool by_model = false;         // the key is the model that the body names
  ngx_str_t tier_text{};
  ngx_str_t file{};  // where it stands
  ngx_uint_t line = 0;
};

// penstock_cost: how much of a unit a request is reckoned to use.
struct CostFormula {
  Unit unit = Unit::kRequests;
  std::optional<limit::Formula> formula;
  Value amount;  // where there is no formula
};

struct RequestState;
struct StatusSource;
struct LocConf;
struct Telemetry;
struct Process;
class IssuedKeys;

// penstock_console: what a location tells the operator, and takes orders for.
struct Console {
  ngx_str_t prefix{};  // "/console"
  ngx_str_t jobs{};    // "/console/jobs"
  bool read_only = false;
  limit::Secret secret;        // of its tokens
  PoolArray<ngx_str_t> hosts;  // the server's names
};

enum class ProviderKind : uint8_t { kTurnstile, kHcaptcha, kRecaptcha, kRecaptcha3 };
enum class OnAway : uint8_t { kPow, kAllow, kDeny };

// Whose challenge it is, if it is somebody else's: a provider's widget asks, and penstockd asks the
// provider.
struct ChallengeProvider {
  ProviderKind kind = ProviderKind::kTurnstile;
  ngx_str_t sitekey{};
  ngx_str_t action{};             // of the widget; empty: none
  OnAway on_away = OnAway::kPow;  // the provider cannot be asked
  ngx_http_upstream_srv_conf_t* upstream = nullptr;
  PoolArray<VerifyLine*> lines;  // to its penstockds
};

// penstock_challenge: what a caller over a limit with action=challenge has to solve.
struct Challenging {
  ngx_uint_t level = NGX_CONF_UNSET_UINT;       // of difficulty, from 1
  ngx_uint_t format = NGX_CONF_UNSET_UINT;      // of challenge::Format; kFormatBySecurity
  time_t pass_s = NGX_CONF_UNSET;               // for how long whoever solved it goes on
  const ChallengeProvider* provider = nullptr;  // nullptr: a proof of work is all there is

  // Browsers derive keys fast over TLS alone.
  static constexpr ngx_uint_t kFormatBySecurity = 100;
};

constexpr std::string_view kAnyOrigin = "any";  // penstock_origins

struct MainConf {
  PoolArray<Zone*> zones;
  PoolArray<Tier*> tiers;
  PoolArray<Limit*> limits;      // all of them, to be bound once every tier is known
  PoolArray<Rule*> rules;        // of limits that name no tier
  PoolArray<LocConf*> passes;    // where penstock_pass stands
  PoolArray<LocConf*> jobs;      // where penstock_jobs stands
  PoolArray<LocConf*> quotas;    // where penstock_quota stands
  PoolArray<LocConf*> consoles;  // where penstock_console stands
  PoolArray<LocConf*> watchers;  // where penstock_metrics tells of penstockds
  PoolArray<StatusSource*> sources;
  PoolArray<ChallengeProvider*> providers;
  PoolArray<VerifyLine*> verify_lines;
  PoolArray<QuotaLine*> quota_lines;        // where some quota has warn=
  PoolArray<std::string_view> body_fields;  // looked for in bodies (body.h)
  IssuedKeys* keys = nullptr;               // penstock_keys
  Zone* sign_in_zone = nullptr;             // penstock_sign_in: whose secret signs its cookies
  PoolArray<LocConf*> sign_ins;             // where it stands
  ngx_str_t docs{};                         // penstock_docs
  ngx_int_t max_delayed = NGX_CONF_UNSET;   // requests delayed in one worker
  Telemetry* telemetry = nullptr;           // what is counted and learned, shared by all workers
  Process* process = nullptr;               // of this worker
};

struct LocConf {             // NOLINT(*Padding): by what they are about
  PoolArray<Limit*> limits;  // that requests are judged by
  PoolArray<Limit*> told;    // of a page: those that stand there, and that no request is judged by
  PoolArray<Limit*> shown;   // penstock_quota: the limits that it tells of
  bool limits_off = false;   // penstock_limit off: none is inherited
  ngx_uint_t log_level = NGX_CONF_UNSET_UINT;     // of refusals; 0: none is logged
  ngx_uint_t rate_headers = NGX_CONF_UNSET_UINT;  // RateHeadersOn
  PoolArray<CostFormula*> costs;
  ngx_uint_t image_cost = NGX_CONF_UNSET_UINT;  // model tokens of a picture or sound
  Value owner;                                  // who may see and cancel the job
  Value share;                          // whose share of the queue it takes; kNone: the owner's
  PoolArray<std::string_view> origins;  // of pages elsewhere that may open a WebSocket here
  ngx_http_upstream_conf_t upstream{};
  // The same, but that none is tried after one that may have made the promise that was asked for.
  ngx_http_upstream_conf_t upstream_of_promises{};
  ngx_str_t queue{};
  PoolArray<StatusSource*> status;  // of the upstream's penstockds
  bool passes = false;              // penstock_pass or penstock_jobs stands in this very location
  bool asks = false;                // penstock_jobs does
  ngx_str_t jobs_path{};            // where callers see their jobs: "/jobs"
  ngx_flag_t dedupe = NGX_CONF_UNSET;
  bool reject_duplicates = false;
  ngx_uint_t earlier = NGX_CONF_UNSET_UINT;  // wire::Earlier: whose earlier answers may do
  uint64_t earlier_age_s = 0;                // no older than that; 0: however old
  ngx_flag_t earlier_if_busy = NGX_CONF_UNSET;
  wire::Earlier earlier_of = wire::Earlier::kNone;  // what all of that comes to
  ngx_msec_t max_wait = NGX_CONF_UNSET_MSEC;        // 0: however long
  ngx_msec_t waiting_events = NGX_CONF_UNSET_MSEC;  // streams speak so often; 0: not
  bool waiting_as_events = false;                   // and not by comments only
  bool later = false;                               // some limit is judged at Stage::kAccess
  bool degrades = false;                            // some limit says action=degrade
  bool to_earlier = false;                          // and degrade_to=earlier
  bool challenges = false;                          // some limit says action=challenge
  Challenging challenging;
  ngx_flag_t require_key = NGX_CONF_UNSET;  // penstock_require_key
  time_t sign_in_s = 0;                     // penstock_sign_in stands here: how long that is good
  ngx_str_t sign_in_path{};                 // penstock_quota: where its server{} has one
  bool shared = false;                      // some limit is shared by hosts
  bool own_limits = false;                  // `limits` stand in this very location
  const void* server = nullptr;  // penstock_quota, _pass and _jobs: the server{} where it stands
  ngx_http_upstream_srv_conf_t* watched =
      nullptr;                 // penstock_metrics: whose penstockds it tells of
  Console* console = nullptr;  // penstock_console stands in this very location
  // penstock_jobs: the penstock_quota of its server{}, and what adds its limits to a stream: yields
  // an event for it, or nothing.
  const LocConf* quota_shown = nullptr;
  ngx_str_t (*limits_event)(ngx_http_request_t* r, RequestState& state) noexcept = nullptr;
  bool quota = false;                  // penstock_quota stands in this very location
  ngx_http_handler_pt page = nullptr;  // penstock_quota, _metrics and _console: what answers here
};

inline MainConf* main_conf(ngx_http_request_t* r) noexcept {
  return static_cast<MainConf*>(ngx_http_get_module_main_conf(r, ngx_http_penstock_module));
}
inline MainConf* main_conf(ngx_conf_t* cf) noexcept {
  return static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_penstock_module));
}
// The configuration of a whole cycle; nullptr if the cycle has no http{}.
inline MainConf* main_conf(const ngx_cycle_t* cycle) noexcept {
  return static_cast<MainConf*>(
      ngx_http_cycle_get_module_main_conf(cycle, ngx_http_penstock_module));
}
inline LocConf* loc_conf(const ngx_http_request_t* r) noexcept {
  return static_cast<LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_penstock_module));
}

// `who` becomes the one whose share the request takes: what penstock_share yields, or else its
// owner. False when memory ran out.
inline bool share_of(ngx_http_request_t* r, std::string_view& who) noexcept {
  const LocConf& loc = *loc_conf(r);
  return loc.share.get(r, who) && (!who.empty() || loc.owner.get(r, who));
}

constexpr size_t kMaxLimits = 16;                           // penstock_limit lines in one place
constexpr size_t kMaxTierRules = 8;                         // limits of one tier
constexpr size_t kMaxDegradeValue = 128;                    // bytes
constexpr size_t kMaxCharges = kMaxLimits * kMaxTierRules;  // counters judged on one request

template <typename T>
T* find_named(const PoolArray<T*>& list, std::string_view name) noexcept {
  for (T* item : list) {
    if (view(item->name) == name) {
      return item;
    }
  }
  return nullptr;
}

}  // namespace penstock
