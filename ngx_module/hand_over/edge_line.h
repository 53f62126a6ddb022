// Edge lines: over which Nginx hears from each penstockd what became of promised jobs.
//
// The first of the workers, for all of them, keeps one connection to every penstockd that jobs are
// passed to, and says HELLO as kEdge. penstockd tells it of every promised job that holds something
// here: HOLD while it is alive (this process renews its leases), OVER when it has ended (what was
// reserved is settled by what was used, and the leases are let go). OVER comes again until SETTLED
// has answered it; that a receipt was settled is noted in its zone, so no process settles it twice.
// What hosts share through Redis it may settle for another host that is gone, if penstockd says so;
// the first line waits a moment until that Redis is known.
// When a line breaks, the leases it
// held are renewed for kPatienceMs more: if penstockd comes back, it names them all again. It names
// them to the same worker, which knows what it holds: if another were told, both would count the
// leases until the first knew. A worker that dies has a successor under its number. A worker that
// is replaced by a reload lets go as soon as it is told to quit.
//
//   closed ──timer──▶ connecting ──▶ HELLO ──▶ told, frame by frame ──error──▶ closed
//
// Bounded: kMostHeld receipts a process. Beyond that a lease is not renewed, and lapses.
#pragma once

#include "ngx_module/conf/conf.h"

namespace penstock {

// Called in each worker process; the first opens them.
ngx_int_t start_edge_lines(ngx_cycle_t* cycle) noexcept;
// Called when it exits.
void stop_edge_lines(ngx_cycle_t* cycle) noexcept;

}  // namespace penstock
