// What penstockds have counted, for /metrics: their metrics pages (shared/wire/metrics_page.h),
// read when somebody asks. They lie in memory (/run), so reading one waits for no disk.
#pragma once

#include "ngx_module/conf/conf.h"
#include "shared/wire/metrics_page.h"

namespace penstock {

struct QueueCounts {
  std::string_view socket;  // as a label has it
  const wire::MetricsPage* page;
};

// The pages of the penstockds that the location tells of; one that cannot be read is left out.
// False when memory ran out.
bool read_queue_counts(ngx_pool_t* pool, const LocConf& loc,
                       PoolArray<QueueCounts>& counts) noexcept;

}  // namespace penstock
