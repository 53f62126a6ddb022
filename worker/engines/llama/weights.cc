#include "worker/engines/llama/weights.h"

#include <unistd.h>

#include <cstring>
#include <map>

#include "worker/engines/llama/json_file.h"
#include "worker/engines/llama/safetensors.h"

namespace penstock::llama {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr size_t kMaxIndexBytes = 100'000'000;
constexpr size_t kMaxShards = 4096;
constexpr std::string_view kIndexName = "model.safetensors.index.json";

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// A shard is a plain name beside the index; anything that could lead elsewhere is refused.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name.front() != '.' && name.find('/') == name.npos &&
         name.find('\\') == name.npos && name.find("..") == name.npos &&
         name.find('\0') == name.npos;
}

// Where each tensor is said to be: index into Weights::files. Empty: one file holds all.
using ShardOf = std::map<std::string, size_t, std::less<>>;

Status open_shards(const std::string& folder, dom::object map, const std::string& index,
                   Weights& weights, ShardOf& shard_of) {
  std::map<std::string, size_t, std::less<>> opened;
  for (const auto& [tensor, value] : map) {
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS || !is_plain_name(shard)) {
      return Error{index + ": tensor " + quote(tensor) + " is said to be in " + quote(shard) +
                   ", expected the name of a file in the same folder"};
    }
    auto found = opened.find(shard);
    if (found == opened.end()) {
      if (opened.size() == kMaxShards) {
        return Error{index + ": lists more than " + std::to_string(kMaxShards) + " files"};
      }
      auto file = Safetensors::open(folder + "/" + std::string(shard));
      if (!file) {
        return Error{file.error().message + " (listed in " + index + ")"};
      }
      found = opened.emplace(shard, weights.files.size()).first;
      weights.files.push_back(std::make_shared<const Safetensors>(std::move(*file)));
    }
    shard_of.emplace(tensor, found->second);
  }
  return Ok{};
}

Status open_index(const std::string& folder, Weights& weights, ShardOf& shard_of) {
  const std::string index = folder + "/" + std::string(kIndexName);
  const auto text = read_file(index, kMaxIndexBytes);
  if (!text) {
    return text.error();
  }
  dom::parser parser;
  const auto root = parse_json(parser, *text, index);
  if (!root) {
    return root.error();
  }
  dom::object map;
  if ((*root)["weight_map"].get(map) != simdjson::SUCCESS) {
    return Error{index +
                 ": \"weight_map\" is missing: expected an object of tensor names to file names"};
  }
  return open_shards(folder, map, index, weights, shard_of);
}

Status open_files(const std::string& folder, Weights& weights, ShardOf& shard_of) {
  const std::string single = folder + "/model.safetensors";
  if (!exists(single) && exists(folder + "/" + std::string(kIndexName))) {
    return open_index(folder, weights, shard_of);
  }
  auto file = Safetensors::open(single);
  if (!file) {
    return file.error();
  }
  weights.files.push_back(std::make_shared<const Safetensors>(std::move(*file)));
  return Ok{};
}

// Hands out tensors by name and remembers the first that was wrong.
class Finder {
 public:
  Finder(std::string folder, Weights& weights, const ShardOf& shard_of)
      : folder_(std::move(folder)), weights_(weights), shard_of_(shard_of) {}

  ConstTensor matrix(const std::string& name, int64_t rows, int64_t cols) {
    return find(name, rows, cols, {rows, cols});
  }
  ConstTensor vector(const std::string& name, int64_t size) { return find(name, 1, size, {size}); }
  ConstTensor bias(bool present, const std::string& name, int64_t size) {
    return present ? vector(name, size) : ConstTensor{};
  }

  const std::string& error() const { return error_; }

 private:
  ConstTensor find(const std::string& name, int64_t rows, int64_t cols,
                   const std::vector<int64_t>& shape) {
    const auto shard = shard_of_.find(name);
    if (!error_.empty()) {
      return {};
    }
    if (!shard_of_.empty() && shard == shard_of_.end()) {
      return fail(folder_ + "/" + std::string(kIndexName), name, "is missing");
    }
    const Safetensors& file = *weights_.files[shard_of_.empty() ? 0 : shard->second];
    const auto entry = file.tensors().find(name);
    if (entry == file.tensors().end()) {
      return fail(file.name(), name, "is missing");
    }
    if (!entry->second.dtype) {
      return fail(file.name(), name,
                  "is " + entry->second.dtype_name + ", expected F32, F16 or BF16");
    }
    if (entry->second.shape != shape) {
      return fail(file.name(), name,
                  "has shape " + shape_text(entry->second.shape) + ", expected " +
                      shape_text(shape) + " by config.json");
    }
    return {aligned(entry->second), *entry->second.dtype, rows, cols};
  }

  const std::byte* aligned(const TensorEntry& entry) {
    const auto address = reinterpret_cast<uintptr_t>(entry.data.data());
    if (address % static_cast<uintptr_t>(bytes_of(*entry.dtype)) == 0) {
      return entry.data.data();
    }
    return weights_.copies.emplace_back(entry.data.begin(), entry.data.end()).data();
  }

  ConstTensor fail(const std::string& file, const std::string& tensor, const std::string& what) {
    error_ = file + ": tensor " + quote(tensor) + " " + what;
    return {};
  }

  std::string folder_;
  Weights& weights_;
  const ShardOf& shard_of_;
  std::string error_;
};

LayerWeights find_layer(Finder& find, const ModelConfig& config, int64_t number) {
  const std::string layer = "model.layers." + std::to_string(number) + ".";
  const std::string attention = layer + "self_attn.";
  const std::string mlp = layer + "mlp.";
  const int64_t hidden = config.hidden;
  const int64_t inner = config.intermediate;
  const int64_t query = config.heads * config.head_dim;
  const int64_t key = config.kv_heads * config.head_dim;
  LayerWeights w;
  w.attention_norm = find.vector(layer + "input_layernorm.weight", hidden);
  w.query = find.matrix(attention + "q_proj.weight", query, hidden);
  w.key = find.matrix(attention + "k_proj.weight", key, hidden);
  w.value = find.matrix(attention + "v_proj.weight", key, hidden);
  w.query_bias = find.bias(config.qkv_bias, attention + "q_proj.bias", query);
  w.key_bias = find.bias(config.qkv_bias, attention + "k_proj.bias", key);
  w.value_bias = find.bias(config.qkv_bias, attention + "v_proj.bias", key);
  w.output = find.matrix(attention + "o_proj.weight", hidden, query);
  w.output_bias = find.bias(config.output_bias, attention + "o_proj.bias", hidden);
  w.mlp_norm = find.vector(layer + "post_attention_layernorm.weight", hidden);
  w.gate = find.matrix(mlp + "gate_proj.weight", inner, hidden);
  w.up = find.matrix(mlp + "up_proj.weight", inner, hidden);
  w.down = find.matrix(mlp + "down_proj.weight", hidden, inner);
  w.gate_bias = find.bias(config.mlp_bias, mlp + "gate_proj.bias", inner);
  w.up_bias = find.bias(config.mlp_bias, mlp + "up_proj.bias", inner);
  w.down_bias = find.bias(config.mlp_bias, mlp + "down_proj.bias", hidden);
  return w;
}

}  // namespace

Result<Weights> load_weights(const std::string& folder, const ModelConfig& config) {
  Weights weights;
  ShardOf shard_of;
  const Status opened = open_files(folder, weights, shard_of);
  if (!opened) {
    return opened.error();
  }
  Finder find(folder, weights, shard_of);
  weights.embedding = find.matrix("model.embed_tokens.weight", config.vocabulary, config.hidden);
  weights.norm = find.vector("model.norm.weight", config.hidden);
  weights.logits = config.tied_embeddings
                       ? weights.embedding
                       : find.matrix("lm_head.weight", config.vocabulary, config.hidden);
  for (int64_t layer = 0; layer < config.layers && find.error().empty(); ++layer) {
    weights.layers.push_back(find_layer(find, config, layer));
  }
  if (!find.error().empty()) {
    return Error{find.error()};
  }
  return weights;
}

Result<ModelFiles> load_model(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const auto text = read_file(path, kMaxConfigBytes);
  if (!text) {
    return text.error();
  }
  ModelFiles files;
  auto config = parse_config(*text, path);
  if (!config) {
    return config.error();
  }
  auto weights = load_weights(folder, *config);
  if (!weights) {
    return weights.error();
  }
  files.config = std::move(*config);
  files.weights = std::move(*weights);
  return files;
}

}  // namespace penstock::llama
