// What penstockds know of models, worker processes and devices, for /metrics. Names are in the
// manner of vLLM's, so that what was drawn for one can be drawn for the other; each model's label
// is model_name there, too.
//
// Source: docs.vllm.ai, "Production Metrics".
#pragma once

#include "ngx_module/pages/queue_counts.h"
#include "shared/metrics/exposition.h"

namespace penstock {

void write_serving(metrics::Writer& writer, const PoolArray<QueueCounts>& counts) noexcept;
void write_workers(metrics::Writer& writer, const PoolArray<QueueCounts>& counts) noexcept;
void write_devices(metrics::Writer& writer, const PoolArray<QueueCounts>& counts) noexcept;

}  // namespace penstock
