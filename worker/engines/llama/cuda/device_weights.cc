#include "worker/engines/llama/cuda/device_weights.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "worker/engines/llama/cuda/plan.h"
#include "worker/engines/llama/rope.h"

namespace penstock::llama::cuda {
namespace {

// Tensors to lie one behind another as one, in one dtype.
struct Group {
  std::vector<ConstTensor> parts;
  DType dtype = DType::kF32;
  int64_t at = 0;
  int64_t bytes = 0;
};

// Walks the model twice in the same order: first to see what there is and where it goes, then, when
// there is memory, to say where it is.
class Plan {
 public:
  // A matrix in its own dtype.
  Matrix matrix(std::vector<ConstTensor> parts) {
    int64_t rows = 0;
    for (const ConstTensor& part : parts) {
      rows += part.rows;
    }
    const int64_t cols = parts.front().cols;
    const DType first = parts.front().dtype;
    const bool same = std::all_of(parts.begin(), parts.end(),
                                  [&](const ConstTensor& part) { return part.dtype == first; });
    const DType dtype = same ? first : DType::kF32;
    return {add(std::move(parts), dtype), dtype, rows, cols};
  }

  // F32, or null if the model has none.
  const float* vector(std::vector<ConstTensor> parts) {
    if (parts.front().empty()) {
      return nullptr;
    }
    return reinterpret_cast<const float*>(add(std::move(parts), DType::kF32));
  }

  int64_t bytes() const { return layout_.bytes(); }

  // From here on pointers are real.
  void place_at(std::byte* base) {
    base_ = base;
    next_ = 0;
  }

  Status copy() const {
    std::vector<float> widened;
    for (const Group& group : groups_) {
      std::byte* to = base_ + group.at;
      for (const ConstTensor& part : group.parts) {
        const int64_t bytes = part.count() * bytes_of(group.dtype);
        const void* from = part.data;
        if (part.dtype != group.dtype) {
          widened.resize(part.count());
          for (int64_t i = 0; i < part.count(); ++i) {
            widened[i] = part.at(0, i);
          }
          from = widened.data();
        }
        if (Status loaded = load(to, from, bytes); !loaded) {
          return loaded;
        }
        to += bytes;
      }
    }
    return Ok{};
  }

 private:
  const std::byte* add(std::vector<ConstTensor> parts, DType dtype) {
    if (base_ != nullptr) {
      return base_ + groups_[next_++].at;
    }
    int64_t bytes = 0;
    for (const ConstTensor& part : parts) {
      bytes += part.count() * bytes_of(dtype);
    }
    groups_.push_back({std::move(parts), dtype, layout_.take(bytes), bytes});
    return nullptr;
  }

  Layout layout_;
  std::vector<Group> groups_;
  std::byte* base_ = nullptr;
  size_t next_ = 0;
};

DeviceLayer layer(Plan& plan, const LayerWeights& w) {
  DeviceLayer to;
  to.attention_norm = plan.vector({w.attention_norm});
  to.qkv = plan.matrix({w.query, w.key, w.value});
  to.qkv_bias = plan.vector({w.query_bias, w.key_bias, w.value_bias});
  to.output = plan.matrix({w.output});
  to.output_bias = plan.vector({w.output_bias});
  to.mlp_norm = plan.vector({w.mlp_norm});
  to.gate_up = plan.matrix({w.gate, w.up});
  to.gate_up_bias = plan.vector({w.gate_bias, w.up_bias});
  to.down = plan.matrix({w.down});
  to.down_bias = plan.vector({w.down_bias});
  return to;
}

DeviceWeights walk(Plan& plan, const Weights& w, const std::vector<float>& frequencies) {
  DeviceWeights to;
  to.embedding = plan.matrix({w.embedding});
  to.logits = w.logits.data == w.embedding.data ? to.embedding : plan.matrix({w.logits});
  to.norm = plan.vector({w.norm});
  to.frequencies = plan.vector({{reinterpret_cast<const std::byte*>(frequencies.data()),
                                 DType::kF32, 1, static_cast<int64_t>(frequencies.size())}});
  for (const LayerWeights& from : w.layers) {
    to.layers.push_back(layer(plan, from));
  }
  return to;
}

}  // namespace

Result<DeviceWeights> upload(const ModelFiles& files) {
  const std::vector<float> frequencies = rope_frequencies(files.config);
  Plan plan;
  walk(plan, files.weights, frequencies);
  auto memory = allocate_on_device(plan.bytes());
  if (!memory) {
    return Error{"the model's weights: " + memory.error().message};
  }
  plan.place_at(memory->get());
  DeviceWeights weights = walk(plan, files.weights, frequencies);
  const Status copied = plan.copy();
  if (!copied) {
    return copied.error();
  }
  weights.bytes = plan.bytes();
  weights.memory = std::move(*memory);
  return weights;
}

}  // namespace penstock::llama::cuda
