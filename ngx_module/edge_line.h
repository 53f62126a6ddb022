// Edge lines: over which each Nginx worker hears from each penstockd what became of promised jobs.
//
// A worker keeps one connection to every penstockd that jobs are passed to, and says HELLO as
// kEdge. penstockd tells one of its lines of every promised job that holds something here: HOLD
// while it is alive (this process renews its leases), OVER when it has ended (what was reserved is
// settled by what was used, and the leases are let go). When a line breaks, what it held is renewed
// for kPatienceMs more, for penstockd, if it comes back, names it all again to whichever line it
// finds first.
//
//   closed ──timer──▶ connecting ──▶ HELLO ──▶ told, frame by frame ──error──▶ closed
//
// Bounded: kMostHeld receipts a process; past it a lease is not renewed, and lapses.
#pragma once

#include "ngx_module/conf.h"

namespace penstock {

// Called in each worker process.
ngx_int_t start_edge_lines(ngx_cycle_t* cycle) noexcept;
// Called when it exits.
void stop_edge_lines(ngx_cycle_t* cycle) noexcept;

}  // namespace penstock
