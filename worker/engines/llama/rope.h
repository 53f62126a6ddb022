// Rotary position embedding: the angles by which each position turns each pair of a head's
// components.
//
// Sources: Su et al., "RoFormer" (2021); "linear" scaling: Chen et al., "Extending Context Window
// via Position Interpolation" (2023); "llama3": Hugging Face modeling_rope_utils, as published with
// Llama 3.1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/engines/llama/config.h"

namespace penstock::llama {

// Radians per position for each of the head_dim / 2 pairs, in float as the models were trained
// with.
std::vector<float> rope_frequencies(const ModelConfig& config);

// Appends, for each position, the cosines and then the sines of its angles: [positions, 2 *
// frequencies].
void rope_turns(std::span<const float> frequencies, std::span<const int32_t> positions,
                std::vector<float>& turns);

}  // namespace penstock::llama
