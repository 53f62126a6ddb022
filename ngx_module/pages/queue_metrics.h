// What penstockds say of their queues and of what is on disk, for /metrics.
#pragma once

#include "ngx_module/pages/queue_counts.h"
#include "shared/metrics/exposition.h"

namespace penstock {

void write_queue_counts(metrics::Writer& writer, const PoolArray<QueueCounts>& counts) noexcept;

}  // namespace penstock
