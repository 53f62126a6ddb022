// Whether a device moves and computes bytes as it should: a copy there, a kernel, and a copy back.
#pragma once

#include "shared/base/result.h"

namespace penstock::llama::cuda {

// REQUIRES: use_device(number) succeeded on this thread. May hang with the device.
Status self_test(int number);

}  // namespace penstock::llama::cuda
