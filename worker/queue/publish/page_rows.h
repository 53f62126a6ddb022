// The rows of the metrics page that tell of now: worker processes, devices, and what hosts share.
#pragma once

#include "shared/wire/metrics_page.h"
#include "worker/queue/devices/watch.h"
#include "worker/queue/shared_jobs/durability.h"
#include "worker/queue/shared_jobs/shared_queue.h"
#include "worker/queue/workers/autoscaler.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

// Writes the rows of the workers that are ready or awaited: the first ones, if the page has no room
// for all.
void put_workers(wire::MetricsPage& page, const Supervisor& supervisor);
void put_desired(wire::MetricsPage& page, const Supervisor& supervisor,
                 const Autoscaler& autoscaler);
// `durability`: of the Redis that the queue is in.
void put_shared(wire::QueueMetrics& row, const SharedQueue& queue, const Durability& durability);
void put_devices(wire::MetricsPage& page, const DeviceWatch& watch);

}  // namespace penstock::queue
