#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "worker/engines/llama/host_memory.h"
#include "worker/engines/llama/ops.h"

namespace penstock::llama {
namespace {

// Index of token `position` of key-value head `head` in a cache tensor counted in heads of one
// block.
int64_t block_head(const Placement& placement, int64_t sequence, int64_t position, int64_t head,
                   const HeadShape& shape) {
  const int64_t block =
      placement.block_tables[sequence * placement.blocks_per_sequence + position / kBlockTokens];
  return block * shape.kv_heads + head;
}

class ReferenceBackend final : public HostMemoryBackend {
 public:
  const char* name() const override { return "reference"; }

  void embed(Tensor out, ConstTensor table, std::span<const int32_t> rows) override {
    for (int64_t t = 0; t < out.rows; ++t) {
      for (int64_t i = 0; i < out.cols; ++i) {
        out.f32()[t * out.cols + i] = table.at(rows[t], i);
      }
    }
  }

  void rms_norm(Tensor out, ConstTensor x, ConstTensor weight, float epsilon) override {
    for (int64_t t = 0; t < x.rows; ++t) {
      double squares = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        squares += static_cast<double>(x.at(t, i)) * x.at(t, i);
      }
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
      for (int64_t i = 0; i < x.cols; ++i) {
        out.f32()[t * out.cols + i] = static_cast<float>(x.at(t, i) * scale * weight.at(0, i));
      }
    }
  }

  void matmul(Tensor out, ConstTensor x, ConstTensor weight, ConstTensor bias) override {
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t r = 0; r < weight.rows; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < x.cols; ++c) {
          sum += static_cast<double>(x.at(t, c)) * weight.at(r, c);
        }
        out.f32()[t * out.cols + r] = static_cast<float>(bias.empty() ? sum : sum + bias.at(0, r));
      }
    }
  }

  void rope(Tensor x, ConstTensor turns, int64_t head_dim) override {
    const int64_t half = head_dim / 2;
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t head = 0; head < x.cols / head_dim; ++head) {
        float* row = x.f32() + t * x.cols + head * head_dim;
        for (int64_t i = 0; i < half; ++i) {
          const float cosine = turns.at(t, i);
          const float sine = turns.at(t, half + i);
          const float a = row[i];
          const float b = row[half + i];
          row[i] = a * cosine - b * sine;
          row[half + i] = b * cosine + a * sine;
        }
      }
    }
  }

  void store_kv(KvLayer cache, ConstTensor key, ConstTensor value, const Placement& placement,
                const HeadShape& shape) override {
    for (int64_t t = 0; t < key.rows; ++t) {
      const int64_t position = placement.positions[t];
      const int64_t slot = position % kBlockTokens;
      for (int64_t head = 0; head < shape.kv_heads; ++head) {
        const int64_t at = block_head(placement, placement.sequences[t], position, head, shape);
        for (int64_t d = 0; d < shape.head_dim; ++d) {
          const int64_t from = head * shape.head_dim + d;
          cache.keys.f32()[(at * shape.head_dim + d) * kBlockTokens + slot] = key.at(t, from);
          cache.values.f32()[(at * kBlockTokens + slot) * shape.head_dim + d] = value.at(t, from);
        }
      }
    }
  }

  void attention(Tensor out, ConstTensor query, KvLayer cache, const Placement& placement,
                 const HeadShape& shape) override {
    for (int64_t t = 0; t < query.rows; ++t) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        attend(out, query, cache, placement, shape, t, head);
      }
    }
  }

  void swiglu(Tensor gate, ConstTensor up) override {
    for (int64_t i = 0; i < up.count(); ++i) {
      const double g = gate.f32()[i];
      gate.f32()[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up.f32()[i]);
    }
  }

  void add(Tensor x, ConstTensor y) override {
    for (int64_t i = 0; i < y.count(); ++i) {
      x.f32()[i] += y.f32()[i];
    }
  }

 private:
  // Two passes over the positions: all scores first, then the weighted values.
  static void attend(Tensor out, ConstTensor query, KvLayer cache, const Placement& placement,
                     const HeadShape& shape, int64_t t, int64_t head) {
    const int64_t kv_head = head / (shape.heads / shape.kv_heads);
    const int64_t sequence = placement.sequences[t];
    std::vector<double> weights(placement.positions[t] + 1);
    for (size_t p = 0; p < weights.size(); ++p) {
      const int64_t at = block_head(placement, sequence, p, kv_head, shape);
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        const float key =
            cache.keys.f32()[(at * shape.head_dim + d) * kBlockTokens + p % kBlockTokens];
        weights[p] += static_cast<double>(query.at(t, head * shape.head_dim + d)) * key;
      }
      weights[p] /= std::sqrt(static_cast<double>(shape.head_dim));
    }
    softmax(weights);
    for (int64_t d = 0; d < shape.head_dim; ++d) {
      double sum = 0;
      for (size_t p = 0; p < weights.size(); ++p) {
        const int64_t at = block_head(placement, sequence, p, kv_head, shape);
        sum += weights[p] *
               cache.values.f32()[(at * kBlockTokens + p % kBlockTokens) * shape.head_dim + d];
      }
      out.f32()[t * out.cols + head * shape.head_dim + d] = static_cast<float>(sum);
    }
  }

  static void softmax(std::vector<double>& scores) {
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) {
      score = std::exp(score - top);
      sum += score;
    }
    for (double& score : scores) {
      score /= sum;
    }
  }
};

}  // namespace

std::unique_ptr<Backend> reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace penstock::llama
