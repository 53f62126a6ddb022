#include "worker/queue/publish/cluster_report.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

int64_t ms(int64_t ns) { return ns / kNsPerMs; }

std::string service_ms(double mean_ns, double seen) {
  return seen > 0 ? std::to_string(static_cast<int64_t>(mean_ns / kNsPerMs)) : "null";
}

std::string describe(const Scheduler::Queue& queue, const Roster& roster, std::string_view model) {
  const AllHosts all = roster.workers(model);
  return JsonObject()
      .text("model", model)
      .number("waiting", all.in_line)
      .number("workers", all.workers)
      .number("ready", all.ready)
      .number("slots", all.slots)
      .number("running", all.running)
      .raw("service_ms", service_ms(all.mean_ns, all.seen))
      .raw("predicted_wait_ms", queue.paused || all.slots == 0
                                    ? "null"
                                    : std::to_string(ms(all.wait_ns(all.in_line + 1))))
      .done();
}

std::string ago(int64_t at_ns, int64_t now_ns) {
  return at_ns == 0 ? "null" : std::to_string(ms(now_ns - at_ns));
}

// How replicas acknowledge what is promised.
std::string describe(const PromiseLine* line, int64_t now_ns) {
  if (line == nullptr) {
    return "null";
  }
  const PromiseLine::Acknowledged& all = line->acknowledged();
  return JsonObject()
      .raw("replicas", all.at_ns == 0 ? "null" : std::to_string(all.replicas))
      .raw("ms", ago(all.at_ns, now_ns))
      .number("failed", static_cast<int64_t>(all.failed))
      .raw("failed_ms", ago(all.failed_ns, now_ns))
      .raw("failed_with", all.failed_with < 0 ? "null" : std::to_string(all.failed_with))
      .done();
}

// What a 202 says.
std::string describe_promise(const SharedJobs& jobs) {
  JsonList servers;
  for (const auto& [at, kept] : jobs.durability().kept()) {
    if (!kept.is_current) {
      continue;
    }
    servers.add(JsonObject()
                    .text("at", at)
                    .text_or_null("appendonly", kept.appendonly)
                    .text_or_null("appendfsync", kept.appendfsync)
                    .text_or_null("warning", kept.warning)
                    .done());
  }
  return JsonObject()
      .text("by", jobs.replicas() > 0 ? "replicas" : "fsync")
      .number("replicas", jobs.replicas())
      .raw("servers", servers.done())
      .done();
}

std::string describe(const Scheduler::Queue& queue, const SharedQueue& shared,
                     const Layouts& layouts, int64_t now_ns) {
  const Roster& roster = shared.roster();
  JsonList others;
  for (const std::string& layout : layouts.others(shared.name())) {
    others.add(json_string(layout));
  }
  std::set<std::string> names;
  for (const HostSays::Model& model : roster.models()) {
    names.insert(model.name);
  }
  for (const SharedOrder::Roster::Lane& lane : roster.lanes()) {  // that nobody serves now
    if (!lane.model.empty()) {
      names.insert(lane.model);
    }
  }
  JsonList models;
  for (const std::string& name : names) {
    models.add(describe(queue, roster, name));
  }
  const int64_t renewed_ns = shared.membership().renewed_ns();
  return JsonObject()
      .text("name", shared.name())
      .boolean("paused", queue.paused)
      .number("waiting", static_cast<int64_t>(roster.in_line()))
      .number("scheduled", static_cast<int64_t>(roster.later()))
      .number("running", static_cast<int64_t>(roster.running()))
      .number("oldest_seconds", roster.oldest_ns() / kNsPerSec)
      .raw("heard_ms",
           roster.told_ns() == 0 ? "null" : std::to_string(ms(now_ns - roster.told_ns())))
      .raw("renewed_ms", renewed_ns == 0 ? "null" : std::to_string(ms(now_ns - renewed_ns)))
      .number("lag_ms", ms(roster.lag_ns(now_ns)))
      .number("unsent", static_cast<int64_t>(shared.unsent()))
      .number("reaped", static_cast<int64_t>(shared.membership().reaped()))
      .raw("acknowledged", describe(shared.promise_line(), now_ns))
      .raw("other_layouts", others.done())
      .raw("models", models.done())
      .done();
}

// A life of a host, in all queues that it shares.
struct Life {
  struct Part {
    const SharedQueue* queue;
    const Roster::Host* host;
  };
  std::vector<Part> parts;
};
using Lives = std::map<std::pair<std::string, int64_t>, Life>;  // by name and beginning

std::string describe(const Life::Part& part) {
  const HostSays& says = part.host->says;
  JsonList models;
  for (const HostSays::Model& each : says.models) {
    models.add(JsonObject()
                   .text("model", each.name)
                   .number("workers", each.workers)
                   .number("ready", each.ready)
                   .number("slots", each.slots)
                   .number("running", each.running)
                   .raw("service_ms", service_ms(each.mean_ns, each.seen))
                   .done());
  }
  const auto& leases = part.queue->roster().leases();
  const auto lease = std::find_if(leases.begin(), leases.end(),
                                  [&](const auto& each) { return each.host == says.lease; });
  const bool has = !says.lease.empty() && lease != leases.end();
  return JsonObject()
      .text("queue", part.queue->name())
      .text_or_null("lease", says.lease)
      .raw("lease_ms", has ? std::to_string(lease->ends_us / 1000) : "null")
      .number("running", has ? static_cast<int64_t>(lease->running) : 0)
      .raw("models", models.done())
      .done();
}

std::string describe(const Life& life, int64_t now_ms) {
  const HostSays& says = life.parts.front().host->says;
  bool runs = false;
  uint64_t unsent = 0;
  int64_t heard_ns = INT64_MAX;
  JsonList queues;
  for (const Life::Part& part : life.parts) {
    runs = runs || !part.host->says.models.empty();
    unsent += part.host->says.unsent;
    heard_ns = std::min(heard_ns, part.host->heard_ns_ago);
    queues.add(describe(part));
  }
  return JsonObject()
      .text("name", says.name)
      .text("role", runs ? "worker" : "edge")
      .text("state", says.draining ? "draining" : "serving")
      .text("version", says.version)
      .number("since", says.since_ms / 1000)
      .number("up_seconds", std::max<int64_t>(now_ms - says.since_ms, 0) / 1000)
      .number("heard_ms", ms(heard_ns))
      .number("unsent", static_cast<int64_t>(unsent))
      .raw("queues", queues.done())
      .done();
}

std::string describe_gone(const Life& life) {
  const Roster::Host& host = *life.parts.front().host;
  return JsonObject()
      .text("name", host.says.name)
      .text("version", host.says.version)
      .text("end", host.says.left ? "left" : "lost")
      .number("seconds", host.heard_ns_ago / kNsPerSec)
      .done();
}

void gather(Lives& lives, const SharedQueue& queue, const std::vector<Roster::Host>& hosts) {
  for (const Roster::Host& host : hosts) {
    lives[{host.says.name, host.says.since_ms}].parts.push_back({&queue, &host});
  }
}

}  // namespace

std::string report_cluster(const Dispatcher& dispatcher) {
  const SharedJobs* const jobs = dispatcher.shared();
  JsonList queues, hosts, gone;
  Lives here, lost;
  const int64_t now_ns = monotonic_ns();
  if (jobs != nullptr) {
    for (const auto& shared : jobs->queues()) {
      if (const Scheduler::Queue* const queue = dispatcher.find_queue(shared->name())) {
        queues.add(describe(*queue, *shared, jobs->layouts(), now_ns));
      }
      gather(here, *shared, shared->roster().hosts());
      gather(lost, *shared, shared->roster().gone());
    }
  }
  for (const auto& [who, life] : here) {
    hosts.add(describe(life, dispatcher.wall_ms()));
  }
  for (const auto& [who, life] : lost) {
    if (!here.contains(who)) {
      gone.add(describe_gone(life));
    }
  }
  return JsonObject()
      .raw("redis", jobs == nullptr ? "null"
                                    : JsonObject()
                                          .boolean("reached", jobs->is_ready())
                                          .text("at", jobs->where())
                                          .text_or_null("why", jobs->trouble())
                                          .raw("promise", describe_promise(*jobs))
                                          .done())
      .raw("queues", queues.done())
      .raw("hosts", hosts.done())
      .raw("gone", gone.done())
      .done();
}

}  // namespace penstock::queue
