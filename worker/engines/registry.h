// Which engines this worker was built with.
#pragma once

#include <memory>

#include "shared/base/result.h"
#include "worker/pool/engine.h"
#include "worker/pool/options.h"

namespace penstock {

// Loads the engine the options name; may take minutes. `sink` must outlive it. An Error names the
// engine and what it stumbled over: a file, a tensor, an option.
Result<std::unique_ptr<Engine>> open_engine(const WorkerOptions& options, Sink& sink);

// Whether the device that the options name can be used: it is there and computes what it should.
// May take seconds, or hang with the device.
Status check_device(const WorkerOptions& options);

}  // namespace penstock
