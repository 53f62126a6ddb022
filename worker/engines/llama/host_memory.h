// The memory half of a Backend whose device is the host: buffers are anonymous pages, weights stay
// where they are.
#pragma once

#include "worker/engines/llama/ops.h"

namespace penstock::llama {

class HostMemoryBackend : public Backend {
 public:
  Result<Buffer> allocate(int64_t bytes) override;
  Result<ConstTensor> place(ConstTensor host) override { return host; }
  Status read(ConstTensor from, std::span<float> to) override;
  Status write(std::span<const float> from, Tensor to) override;
  Status finish() override { return Ok{}; }
};

}  // namespace penstock::llama
