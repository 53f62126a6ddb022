// How fast this device reads its memory: the limit that decoding is held against.
#pragma once

#include "shared/base/result.h"

namespace penstock::llama::cuda {

// Bytes a second of a kernel that does nothing but read, over more than any cache holds; the best
// of several. REQUIRES: a device is in use on this thread.
Result<double> read_bandwidth();

}  // namespace penstock::llama::cuda
