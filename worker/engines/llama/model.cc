#include "worker/engines/llama/model.h"

#include <algorithm>

#include "worker/engines/llama/rope.h"

namespace penstock::llama {
namespace {

Status place(Backend& backend, ConstTensor& tensor) {
  if (tensor.empty()) {
    return Ok{};
  }
  const auto placed = backend.place(tensor);
  if (!placed) {
    return placed.error();
  }
  tensor = *placed;
  return Ok{};
}

}  // namespace

Result<Model> Model::make(ModelFiles files, Backend& backend) {
  Model model(backend);
  model.config_ = std::move(files.config);
  model.weights_ = std::move(files.weights);
  model.frequencies_ = rope_frequencies(model.config_);
  const Status placed = model.place_weights();
  if (!placed) {
    return placed.error();
  }
  return model;
}

Status Model::place_weights() {
  Weights& w = weights_;
  const bool tied = w.logits.data == w.embedding.data;
  std::vector<ConstTensor*> all = {&w.embedding, &w.norm};
  if (!tied) {
    all.push_back(&w.logits);
  }
  for (LayerWeights& l : w.layers) {
    all.insert(all.end(), {&l.attention_norm, &l.query, &l.key, &l.value, &l.query_bias,
                           &l.key_bias, &l.value_bias, &l.output, &l.output_bias, &l.mlp_norm,
                           &l.gate, &l.up, &l.gate_bias, &l.up_bias, &l.down, &l.down_bias});
  }
  for (ConstTensor* tensor : all) {
    Status placed = place(*backend_, *tensor);
    if (!placed) {
      return placed;
    }
  }
  if (tied) {
    w.logits = w.embedding;
  }
  return Ok{};
}

Result<std::span<const float>> Model::forward(std::span<const SequencePart> parts,
                                              const KvCache& cache) {
  const Status prepared = prepare(parts);
  if (!prepared) {
    return prepared.error();
  }
  backend_->embed(step_.hidden, weights_.embedding, step_.tokens);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    attention_block(weights_.layers[i], cache.layer(static_cast<int64_t>(i)));
    mlp_block(weights_.layers[i]);
  }
  logits_.resize(step_.logits.count());
  if (!step_.wanted.empty()) {
    // Only the rows someone will sample from are worth the vocabulary's product.
    backend_->embed(step_.last, step_.hidden, step_.wanted);
    backend_->rms_norm(step_.last, step_.last, weights_.norm, config_.norm_epsilon);
    backend_->matmul(step_.logits, step_.last, weights_.logits, {});
    const Status got = backend_->read(step_.logits, logits_);
    if (!got) {
      return got.error();
    }
  }
  const Status finished = backend_->finish();
  if (!finished) {
    return finished.error();
  }
  return std::span<const float>(logits_);
}

Status Model::prepare(std::span<const SequencePart> parts) {
  Step& s = step_;
  s = {};
  size_t longest = 0;
  for (const SequencePart& part : parts) {
    longest = std::max(longest, part.blocks.size());
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    const SequencePart& part = parts[i];
    for (size_t j = 0; j < part.tokens.size(); ++j) {
      s.tokens.push_back(part.tokens[j]);
      s.positions.push_back(part.position + static_cast<int32_t>(j));
      s.sequences.push_back(static_cast<int32_t>(i));
    }
    s.block_tables.insert(s.block_tables.end(), part.blocks.begin(), part.blocks.end());
    s.block_tables.resize((i + 1) * longest, 0);
    if (part.wants_logits) {
      s.wanted.push_back(static_cast<int32_t>(s.tokens.size()) - 1);
    }
  }
  s.placement = {s.positions, s.sequences, s.block_tables, static_cast<int64_t>(longest)};
  Status room = make_room();
  if (!room) {
    return room;
  }
  turns_.clear();
  rope_turns(frequencies_, s.positions, turns_);
  return backend_->write(turns_, s.turns);
}

// Lays the step's tensors out in one buffer.
Status Model::make_room() {
  Step& s = step_;
  const auto tokens = static_cast<int64_t>(s.tokens.size());
  const auto wanted = static_cast<int64_t>(s.wanted.size());
  const int64_t query = config_.heads * config_.head_dim;
  const int64_t key = config_.kv_heads * config_.head_dim;
  const std::pair<Tensor*, std::pair<int64_t, int64_t>> wishes[] = {
      {&s.hidden, {tokens, config_.hidden}},
      {&s.normed, {tokens, config_.hidden}},
      {&s.query, {tokens, query}},
      {&s.key, {tokens, key}},
      {&s.value, {tokens, key}},
      {&s.attended, {tokens, query}},
      {&s.gate, {tokens, config_.intermediate}},
      {&s.up, {tokens, config_.intermediate}},
      {&s.turns, {tokens, config_.head_dim}},
      {&s.last, {wanted, config_.hidden}},
      {&s.logits, {wanted, config_.vocabulary}},
  };
  constexpr int64_t kAlign = 64;  // a cache line, and the widest vector
  int64_t bytes = 0;
  for (const auto& [tensor, shape] : wishes) {
    *tensor = {nullptr, DType::kF32, shape.first, shape.second};
    bytes += (tensor->count() * bytes_of(DType::kF32) + kAlign - 1) / kAlign * kAlign;
  }
  if (bytes > activations_.bytes()) {
    auto memory = backend_->allocate(bytes + bytes / 4);
    if (!memory) {
      return memory.error();
    }
    activations_ = std::move(*memory);
  }
  std::byte* at = activations_.data();
  for (const auto& [tensor, shape] : wishes) {
    tensor->data = at;
    at += (tensor->count() * bytes_of(DType::kF32) + kAlign - 1) / kAlign * kAlign;
  }
  return Ok{};
}

void Model::attention_block(const LayerWeights& w, KvLayer cache) {
  Step& s = step_;
  const HeadShape shape{config_.heads, config_.kv_heads, config_.head_dim};
  backend_->rms_norm(s.normed, s.hidden, w.attention_norm, config_.norm_epsilon);
  backend_->matmul(s.query, s.normed, w.query, w.query_bias);
  backend_->matmul(s.key, s.normed, w.key, w.key_bias);
  backend_->matmul(s.value, s.normed, w.value, w.value_bias);
  backend_->rope(s.query, s.turns, config_.head_dim);
  backend_->rope(s.key, s.turns, config_.head_dim);
  backend_->store_kv(cache, s.key, s.value, s.placement, shape);
  backend_->attention(s.attended, s.query, cache, s.placement, shape);
  backend_->matmul(s.normed, s.attended, w.output, w.output_bias);
  backend_->add(s.hidden, s.normed);
}

void Model::mlp_block(const LayerWeights& w) {
  Step& s = step_;
  backend_->rms_norm(s.normed, s.hidden, w.mlp_norm, config_.norm_epsilon);
  backend_->matmul(s.gate, s.normed, w.gate, w.gate_bias);
  backend_->matmul(s.up, s.normed, w.up, w.up_bias);
  backend_->swiglu(s.gate, s.up);
  backend_->matmul(s.normed, s.gate, w.down, w.down_bias);
  backend_->add(s.hidden, s.normed);
}

}  // namespace penstock::llama
