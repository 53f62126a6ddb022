// The watch: penstock-worker as the process that looks at the devices.
//
// penstockd never loads the driver's library, as it must outlive any GPU: it starts this, and hears
// once a second of all devices by DEVICE and DEVICES (PROTOCOL.md). When a call into the driver
// hangs, penstockd misses its word and kills it.
//
// While a device is in a bad way, the driver is let go of between two looks: who wants to reset the
// device finds nobody on it, and when it is well again that is seen.
#pragma once

#include "shared/base/fd.h"

namespace penstock::nvml {

// Until penstockd closes the socket. `library`: see Nvml::open(). The process's exit status: 0 also
// when there is no driver.
int watch_devices(Fd socket, const char* library);

}  // namespace penstock::nvml
