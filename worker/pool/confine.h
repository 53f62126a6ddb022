// What each process of a worker is bound by from its beginning, and with it all that it starts.
//
// - It gets no more rights than it has: no file makes it another user, or gives it capabilities
//   (no_new_privs, https://docs.kernel.org/userspace-api/no_new_privs.html).
// - It leaves no core, as that has what was asked in it. For good: no child raises that again.
// - Where memory is out, it is killed before penstockd is.
#pragma once

#include "shared/base/result.h"

namespace penstock {

// Of 1000, as in /proc/PID/oom_score_adj (proc(5)). A program of engine `process` has more.
constexpr int kOomScore = 250;

// Call it while there is one thread. The Error says which of these does not hold.
Status confine();

}  // namespace penstock
