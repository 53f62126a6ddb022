// How much memory all descendants of a process hold.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace penstock::process {

// Their resident anonymous and shared memory (RssAnon + RssShmem of /proc/PID/status, proc(5)),
// summed; what forks share counts for each. Files that are mapped (weights, libraries) do not
// count: the kernel can drop those. O(descendants).
int64_t resident_bytes_below(pid_t root);

}  // namespace penstock::process
