// What zones that hosts share have had to do with Redis, as Prometheus reads it.
#pragma once

#include "ngx_module/conf/conf.h"
#include "shared/metrics/exposition.h"

namespace penstock {

// Nothing, where no zone is shared.
void write_leases(metrics::Writer& writer, const MainConf& main) noexcept;

}  // namespace penstock
