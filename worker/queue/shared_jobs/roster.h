// Roster: what the hosts that share a queue say of themselves, and how the queue stands.
//
// Each host says it each second, for some seconds, and hears in the same request what all say
// (scripts/roster.lua). What a host says are frames of the wire (shared/wire), one of the host and
// one of each model: what a later version adds is passed over by an earlier one, and what an
// earlier one does not say is nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "shared/limit/siphash.h"
#include "worker/queue/order/all_hosts.h"
#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

// What one host says of itself and a queue.
struct HostSays {
  struct Model {
    std::string name;
    std::string written;  // `model:` as in its penstock.yaml, which callers may ask for too
    uint32_t slots = 0;   // jobs that its live workers can run at once
    uint32_t running = 0;
    uint32_t workers = 0;  // that it should have
    uint32_t ready = 0;    // of those
    bool attended = true;  // some are, or may be in a moment (ServedModels)
    double mean_ns = 0;    // that a job takes there
    double spread = 0;     // its variance over the squared mean
    double seen = 0;       // jobs it was learned from; 0: nothing is known
  };
  std::string name;      // what people call it
  std::string version;   // of penstockd
  std::string lease;     // by which it takes jobs; empty: it does not
  int64_t since_ms = 0;  // penstockd began; time of day
  bool draining = false;
  bool left = false;          // in good order
  uint64_t unsent = 0;        // ends that Redis does not have yet
  std::vector<Model> models;  // none: it is an edge
};

// Of models, as many as fit. Names are cut to what SharedOrder::kGoneBytes has room for.
std::string encode(const HostSays& says, size_t most_bytes);
// Nothing: it is not understood. What is behind its first frame may be cut.
std::optional<HostSays> decode_host(std::string_view bytes);

class Roster {
 public:
  static constexpr int64_t kSaysNs = 5 * kNsPerSec;  // holds so long
  static constexpr size_t kMostSaysBytes = 64U << 10;

  class User {
   public:
    virtual HostSays says() const = 0;
    // The secret that this host knows of before; empty: none. And the one that is in force.
    virtual std::string kept_secret() const = 0;
    virtual void keep_secret(const std::string& secret) = 0;
    // All of this has been heard anew.
    virtual void on_roster() = 0;

   protected:
    ~User() = default;
  };
  struct Host {
    HostSays says;
    int64_t heard_ns_ago = 0;  // when it spoke last, as of told_ns()
  };

  // Both live longer.
  Roster(SharedOrder& order, User& user) : order_(order), user_(user) {}
  ~Roster() { *alive_ = false; }
  Roster(const Roster&) = delete;
  Roster& operator=(const Roster&) = delete;

  // Says it, and hears. `channel` is heard by who hears it: "tick N" comes there.
  void tell(const std::string& channel);
  // "tick N" was heard.
  void ticked(std::string_view number);
  void leave();
  void lost_data() { secret_.reset(); }

  // Under which all hosts hash owners and keys; nothing: Redis has not been reached yet.
  const std::optional<limit::Secret>& secret() const { return secret_; }
  // The models that live hosts serve, each name once for each way it is written.
  const std::vector<HostSays::Model>& models() const { return models_; }
  // Those that hosts served which are gone, and have not come back, for as long as gone() knows of
  // them; without those that live hosts serve.
  const std::vector<HostSays::Model>& models_away() const { return models_away_; }
  // The model by its name, where any host serves it by that, or one that is gone did; an empty one
  // is any. nullptr: none.
  const std::string* find_model(std::string_view asked) const;
  // Of one model; of an empty one: all.
  AllHosts workers(std::string_view model) const;

  const std::vector<Host>& hosts() const { return hosts_; }  // that live
  // Whether another one lives, and stays.
  bool others_stay() const {
    return std::any_of(hosts_.begin(), hosts_.end(), [own = user_.says()](const Host& host) {
      return !host.says.draining &&
             (host.says.name != own.name || host.says.since_ms != own.since_ms);
    });
  }
  const std::vector<Host>& gone() const { return gone_; }  // for some minutes
  const std::vector<SharedOrder::Roster::Lease>& leases() const { return heard_.leases; }
  const std::vector<SharedOrder::Roster::Lane>& lanes() const { return heard_.lanes; }
  bool paused() const { return heard_.paused; }
  uint64_t waiting() const { return heard_.waiting; }  // the scheduled and delayed too
  uint64_t in_line() const;                            // of those
  uint64_t later() const { return waiting() - std::min(waiting(), in_line()); }  // the others
  uint64_t running() const;
  int64_t oldest_ns() const;  // since the first came of those that lead a lane
  // When all of this was heard last, monotonic; 0: never.
  int64_t told_ns() const { return told_ns_; }
  // From saying to hearing it on the channel, the last time; with what has not been heard yet.
  int64_t lag_ns(int64_t now_ns) const;

 private:
  void heard(SharedOrder::Roster& roster);
  void hear_hosts();
  void hear_models();

  SharedOrder& order_;
  User& user_;
  const std::string self_ = SharedOrder::new_host();
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::optional<limit::Secret> secret_;
  std::string proposed_;  // should Redis have none: the one it had
  SharedOrder::Roster heard_;
  std::vector<Host> hosts_, gone_;
  std::vector<HostSays::Model> models_, models_away_;
  int64_t told_ns_ = 0;
  uint64_t ticks_ = 0;
  int64_t tick_ns_ = 0;  // when the oldest was sent that has not been heard; 0: all have
  uint64_t tick_ = 0;    // which
  int64_t lag_ns_ = 0;
};

}  // namespace penstock::queue
