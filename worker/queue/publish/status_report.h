// What penstockd says of itself: the rows of the status page, and the JSON that penstockctl shows.
#pragma once

#include <cstdint>
#include <string>

#include "worker/queue/api/edge_versions.h"
#include "worker/queue/config/config.h"
#include "worker/queue/devices/watch.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/publish/status_page_writer.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

StatusPageWriter::Row status_row(Dispatcher& dispatcher, Scheduler::Queue& queue);
// The same for people: of a queue that hosts share, what runs, and can run, on all of them.
StatusPageWriter::Row status_of_all_hosts(Dispatcher& dispatcher, Scheduler::Queue& queue);

struct StatusSources {
  const Config& config;
  Dispatcher& dispatcher;
  const Supervisor& supervisor;
  const DeviceWatch& device_watch;
  uint64_t protocol_errors;
  size_t connections;
  const EdgeVersions& edges;
  int64_t uptime_s;
};
// {"status":"serving"|"draining","version":…,"uptime_seconds":…,"queues":[…],"workers":[…],"devices":[…],
// "device_watch":{"state":"off"|"watching"|"none","message":…|null},"counters":{…},
// "protocol":{"first":…,"newest":…},"edges":[{"version":…|null,"protocol":…,"refused":…,"pid":…}],
// "state":{"dead_letters":…,"bytes":…,"max_bytes":…,"error":…}|null}
std::string report_status(const StatusSources& sources);

}  // namespace penstock::queue
