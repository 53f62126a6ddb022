// What nginx.conf says, as the module keeps it: zones, tiers, limits, and where requests go.
//
// All of it is made while the configuration is read, lives in the cycle's pool, and is constant
// once workers run.
#pragma once

#include "ngx_module/nginx.h"

#include <optional>

#include "ngx_module/refusal.h"
#include "shared/limit/charge.h"

namespace penstock {

struct Limit;

// One limit's terms: "10r/m burst=5" under a name. The name is its identity in a zone: the counters
// are found by it, so it survives reloads and is shared by every place that uses it.
struct Rule {
  ngx_str_t name{};      // free-rate
  ngx_str_t terms{};     // 10r/m burst=5, for messages
  ngx_str_t sentence{};  // Plan free allows 10 requests a minute.
  ngx_str_t policy{};    // "free-rate";q=10;w=60
  ngx_str_t label{};     // , "free-rate";r=
  Refusal refusal;       // what it says when it alone refuses
  limit::GcraPolicy gcra;
  ngx_str_t file{};  // where it stands
  ngx_uint_t line = 0;
};

// A rule in a zone: what a request is charged against.
//
// Its place in the table is the key's hash XOR the salt. The hash is keyed and 128 bits wide, so
// two counters meet no more often than two hashes would, and a key that several counters share is
// hashed once.
struct Counter {
  const Rule* rule = nullptr;
  limit::Hash128 salt;  // of the name, under the zone's secret: known once the memory is there

  limit::Hash128 place_of(const limit::Hash128& key_hash) const noexcept {
    return {key_hash.lo ^ salt.lo, key_hash.hi ^ salt.hi};
  }
};

// penstock_zone: the shared memory that holds counters.
struct Zone {
  ngx_str_t name{};
  ngx_shm_zone_t* shm = nullptr;
  std::optional<limit::Table> table;  // once the memory is there; workers have it always
  limit::Secret key_secret;           // keys are hashed with it
  PoolArray<Counter*> counters;
  PoolArray<Limit*> limits;  // that use it
};

// penstock_tier: a plan.
struct Tier {
  ngx_str_t name{};
  PoolArray<Rule*> rules;
  ngx_str_t policies{};  // of all rules, as RateLimit-Policy lists them
  int64_t priority = 0;
  uint64_t weight = 1;
};

// A value that a request yields. Most are one variable or a constant and are read without a copy.
struct Value {
  enum class Kind : uint8_t { kNone, kConstant, kVariable, kComplex };
  Kind kind = Kind::kNone;
  ngx_int_t index = 0;
  ngx_str_t constant{};
  ngx_http_complex_value_t complex{};

  // False when memory ran out.
  bool get(ngx_http_request_t* r, std::string_view& out) const noexcept;
};

// penstock_limit: counters that a key is charged against.
struct Limit {
  Zone* zone = nullptr;
  Value key;
  limit::Hash128 constant_hash;                  // of a constant key
  Value tier;                                    // kNone: an inline rate
  Counter* counter = nullptr;                    // inline rate
  PoolArray<PoolArray<Counter*>> tier_counters;  // in the order of MainConf::tiers
  ngx_str_t file{};                              // where it stands
  ngx_uint_t line = 0;
};

struct StatusSource;
struct LocConf;

struct MainConf {
  PoolArray<Zone*> zones;
  PoolArray<Tier*> tiers;
  PoolArray<Limit*> limits;    // all of them, to be bound once every tier is known
  PoolArray<LocConf*> passes;  // where penstock_pass stands
  PoolArray<StatusSource*> sources;
};

struct LocConf {
  PoolArray<Limit*> limits;
  Value owner;
  ngx_http_upstream_conf_t upstream{};
  ngx_str_t queue{};
  PoolArray<StatusSource*> status;  // of the upstream's penstockds
  bool passes = false;              // penstock_pass stands in this very location
};

inline MainConf* main_conf(ngx_http_request_t* r) noexcept {
  return static_cast<MainConf*>(ngx_http_get_module_main_conf(r, ngx_http_penstock_module));
}
inline LocConf* loc_conf(ngx_http_request_t* r) noexcept {
  return static_cast<LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_penstock_module));
}

constexpr size_t kMaxLimits = 16;                           // penstock_limit lines in one place
constexpr size_t kMaxTierRules = 8;                         // rates of one tier
constexpr size_t kMaxCharges = kMaxLimits * kMaxTierRules;  // counters judged on one request

// Says what is wrong at the line being read, as nginx -t shows it, and fails the directive.
char* refuse(ngx_conf_t* cf, const char* format, ...) noexcept;

// The same for something found wrong only once everything was read: where is told by `file` and
// `line`.
ngx_int_t refuse_at(ngx_conf_t* cf, const ngx_str_t& file, ngx_uint_t line, const char* format,
                    ...) noexcept;

// Reads a directive's value into `value`: a constant, one variable, or a mixture.
char* compile_value(ngx_conf_t* cf, ngx_str_t text, Value& value) noexcept;

// limit_directives.cc
char* read_zone(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_tier(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_limit(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
// Gives every limit its counters; all tiers are known now.
ngx_int_t bind_limits(ngx_conf_t* cf) noexcept;

// pass_directives.cc
char* read_pass(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_owner(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
// Finds the status pages of every upstream that is passed to; all upstreams are known now.
ngx_int_t bind_sources(ngx_conf_t* cf) noexcept;
void* create_loc_conf(ngx_conf_t* cf) noexcept;
char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept;

}  // namespace penstock
