// What a configuration needs of the machine, looked at before penstockd is started: folders and
// their modes, sockets, secrets, models, programs, descriptors. As whoever looks: root may do what
// penstockd's user may not.
#pragma once

#include <string>
#include <vector>

#include "worker/queue/care/finding.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

// kWarn: it may not work as wanted; kBad: it will not, or others can do harm. What is in order is
// told as kOk, one line a subject. `stops` is set where a start fails for sure: what penstockd's
// user may not do is so only if that user looks, who is named penstock, or owns the folder.
// `programs`: the folder where penstock-worker is, unless the configuration says so.
std::vector<Finding> look_at_needs(const Config& config, const std::string& programs);

}  // namespace penstock::queue
