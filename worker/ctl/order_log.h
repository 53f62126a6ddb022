// A line of the system's log (syslog, facility authpriv) for each order that penstockctl carries
// out by itself. What it asks of penstockd or Nginx is in their logs.
//
//     penstockctl[4711]: order uid=0 by=alice deed=revoke object=/keys/team-a keys=2f1c0a9be3d4
//       file=/etc/penstock/keys outcome=done
#pragma once

#include "shared/base/log.h"

namespace penstock::ctl {

// `by` is who called sudo. Where no system log listens, the line is nowhere.
void log_order(bool done, LogFields fields);

}  // namespace penstock::ctl
