#include "worker/engines/llama/token_edits.h"

namespace penstock::llama {
namespace {

// Below anything a model says; finite, so that where all are banned one of them is still drawn.
constexpr float kBan = -1e9F;

}  // namespace

TokenEdits::TokenEdits(const Settings& settings, std::span<const int32_t> prompt,
                       std::span<const openai::TokenBias> biases, std::span<const int32_t> ends)
    : settings_(settings) {
  if (settings.repetition_penalty != 1) {
    for (const int32_t token : prompt) {
      edits_[place_of(token)].penalty = settings.repetition_penalty;
    }
  }
  for (const openai::TokenBias& each : biases) {
    const size_t place = place_of(each.token);
    notes_[place].bias = each.bias;
    settle(place);
  }
  if (settings.min_tokens > 0) {
    for (const int32_t end : ends) {
      const size_t place = place_of(end);
      notes_[place].banned = true;
      settle(place);
    }
  }
}

void TokenEdits::drawn(int32_t token) {
  ++drawn_;
  if (settings_.repetition_penalty != 1 || settings_.presence_penalty != 0 ||
      settings_.frequency_penalty != 0) {
    const size_t place = place_of(token);
    ++notes_[place].drawn;
    edits_[place].penalty = settings_.repetition_penalty;
    settle(place);
  }
  if (drawn_ == settings_.min_tokens) {
    for (size_t place = 0; place < notes_.size(); ++place) {
      notes_[place].banned = false;
      settle(place);
    }
  }
}

size_t TokenEdits::place_of(int32_t token) {
  const auto [found, fresh] = places_.try_emplace(token, edits_.size());
  if (fresh) {
    edits_.push_back({.token = token});
    notes_.emplace_back();
  }
  return found->second;
}

void TokenEdits::settle(size_t place) {
  const Note& note = notes_[place];
  edits_[place].add = note.bias + (note.banned ? kBan : 0) -
                      (note.drawn > 0 ? settings_.presence_penalty : 0) -
                      settings_.frequency_penalty * static_cast<float>(note.drawn);
}

}  // namespace penstock::llama
