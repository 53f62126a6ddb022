#include "worker/engines/llama/rope.h"

#include <cmath>
#include <numbers>

namespace penstock::llama {
namespace {

// Long waves are slowed down by `factor`, short ones kept, those between blended.
float llama3_scaled(float frequency, const RopeScaling& scaling) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < scaling.original_max_positions / scaling.high_freq_factor) {
    return frequency;
  }
  if (wavelength > scaling.original_max_positions / scaling.low_freq_factor) {
    return static_cast<float>(frequency / scaling.factor);
  }
  const double smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return static_cast<float>((1 - smooth) * frequency / scaling.factor + smooth * frequency);
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < config.head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(config.head_dim);
    float frequency = 1.0F / std::pow(static_cast<float>(config.rope_theta), exponent);
    if (config.rope_scaling.kind == RopeScaling::Kind::kLinear) {
      frequency /= static_cast<float>(config.rope_scaling.factor);
    } else if (config.rope_scaling.kind == RopeScaling::Kind::kLlama3) {
      frequency = llama3_scaled(frequency, config.rope_scaling);
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

void rope_turns(std::span<const float> frequencies, std::span<const int32_t> positions,
                std::vector<float>& turns) {
  for (const int32_t position : positions) {
    for (const float frequency : frequencies) {
      turns.push_back(std::cos(static_cast<float>(position) * frequency));
    }
    for (const float frequency : frequencies) {
      turns.push_back(std::sin(static_cast<float>(position) * frequency));
    }
  }
}

}  // namespace penstock::llama
