// How much memory all descendants of a process hold.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace penstock::process {

// The sum of their resident anonymous and shared memory in bytes (RssAnon + RssShmem of
// /proc/PID/status, proc(5)). What forks share counts for each. Mapped files (weights, libraries)
// do not count: the kernel can drop those. O(descendants).
int64_t resident_bytes_below(pid_t root);

}  // namespace penstock::process
