// The names of what telemetry counts, as Prometheus reads them.
#pragma once

#include "ngx_module/request/telemetry_state.h"

namespace penstock {

// Names all that the configuration can count. What matters most comes first: it has room for
// certain. False when memory ran out.
bool name_all(ngx_conf_t* cf, const MainConf& main, Telemetry& telemetry) noexcept;

}  // namespace penstock
