#include "worker/engines/llama/config.h"

#include <string_view>

#include "worker/engines/llama/json_keys.h"

namespace penstock::llama {
namespace {

namespace dom = simdjson::dom;

void read_shape(Keys& keys, ModelConfig& config) {
  config.hidden = keys.integer("hidden_size", 1, 1 << 17);
  config.intermediate = keys.integer("intermediate_size", 1, 1 << 20);
  config.layers = keys.integer("num_hidden_layers", 1, 1024);
  config.heads = keys.integer("num_attention_heads", 1, 1024);
  config.kv_heads = keys.integer("num_key_value_heads", 1, 1024, config.heads);
  config.vocabulary = keys.integer("vocab_size", 1, 1 << 21);
  config.max_positions = keys.integer("max_position_embeddings", 1, 1 << 24);
  config.norm_epsilon = static_cast<float>(keys.number("rms_norm_eps", 0, 1, 1e-6));
  config.tied_embeddings = keys.boolean("tie_word_embeddings", false);
  if (config.heads % config.kv_heads != 0) {
    keys.fail("num_key_value_heads",
              "expected a divisor of num_attention_heads, " + std::to_string(config.heads));
  }
  const bool divides = config.hidden % config.heads == 0;
  if (!keys.find("head_dim") && !divides) {
    keys.fail("head_dim", "hidden_size is no multiple of num_attention_heads, so it must be given");
  }
  config.head_dim = keys.integer("head_dim", 2, 1024, config.hidden / config.heads);
  if (config.head_dim % 2 != 0 || config.head_dim < 2) {
    keys.fail(
        keys.find("head_dim") ? "head_dim" : "hidden_size",
        "heads must have an even number of components, not " + std::to_string(config.head_dim));
  }
}

// What makes a llama, a mistral and a qwen2 differ.
void read_kind(Keys& keys, ModelConfig& config) {
  const std::string type = keys.text("model_type", "");
  if (type != "llama" && type != "mistral" && type != "qwen2") {
    keys.fail("model_type", "expected \"llama\", \"mistral\" or \"qwen2\", not " + quote(type));
  }
  if (keys.text("hidden_act", "silu") != "silu") {
    keys.fail("hidden_act", "expected \"silu\"");
  }
  const bool window = type == "qwen2" ? keys.boolean("use_sliding_window", false)
                                      : keys.find("sliding_window").has_value();
  if (window) {
    keys.fail(type == "qwen2" ? "use_sliding_window" : "sliding_window",
              "sliding window attention is not implemented");
  }
  const bool bias = keys.boolean("attention_bias", false);
  config.qkv_bias = bias || type == "qwen2";
  config.output_bias = bias && type != "qwen2";
  config.mlp_bias = keys.boolean("mlp_bias", false);
  if (keys.find("quantization_config")) {
    keys.fail("quantization_config", "quantized weights are not implemented; use F32, F16 or BF16");
  }
}

// `type` has been "type" and "rope_type"; the whole has been "rope_scaling" beside "rope_theta",
// and is "rope_parameters" with rope_theta inside since transformers 5.
void read_rope(Keys& keys, ModelConfig& config) {
  const bool joint = keys.find("rope_parameters").has_value();
  const std::string_view key = joint ? "rope_parameters" : "rope_scaling";
  const auto object = keys.find(key);
  Keys rope(object.value_or(dom::element()), keys.name() + ": " + std::string(key));
  if (object && !object->is_object()) {
    return keys.fail(key, "expected an object or null");
  }
  const bool inside = joint && rope.find("rope_theta");
  config.rope_theta = (inside ? rope : keys).number("rope_theta", 1, 1e12, 10000.0);
  if (!object) {
    return;
  }
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  RopeScaling& scaling = config.rope_scaling;
  if (type == "linear" || type == "llama3") {
    scaling.kind = type == "linear" ? RopeScaling::Kind::kLinear : RopeScaling::Kind::kLlama3;
    scaling.factor = rope.number("factor", 1, 1e6);
  } else if (type != "default") {
    keys.fail(key, "expected rope_type \"default\", \"linear\" or \"llama3\", not " + quote(type));
  }
  if (type == "llama3") {
    scaling.low_freq_factor = rope.number("low_freq_factor", 1e-6, 1e6);
    scaling.high_freq_factor = rope.number("high_freq_factor", 1e-6, 1e6);
    scaling.original_max_positions = rope.number("original_max_position_embeddings", 1, 1 << 24);
    if (scaling.low_freq_factor >= scaling.high_freq_factor) {
      rope.fail("high_freq_factor", "expected more than low_freq_factor");
    }
  }
  if (!rope.error().empty()) {
    keys.fail(key, rope.error());
  }
}

void read_ends(Keys& keys, ModelConfig& config) {
  const int64_t last = config.vocabulary - 1;
  config.bos = static_cast<int32_t>(keys.integer("bos_token_id", 0, last, -1));
  config.eos = keys.ids("eos_token_id", last);
}

}  // namespace

Result<ModelConfig> parse_config(const std::string& text, const std::string& name) {
  dom::parser parser;
  const auto root = parse_json_object(parser, text, name);
  if (!root) {
    return root.error();
  }
  Keys keys(*root, name);
  ModelConfig config;
  read_kind(keys, config);
  read_shape(keys, config);
  if (keys.error().empty()) {
    read_rope(keys, config);
    read_ends(keys, config);
  }
  if (!keys.error().empty()) {
    return Error{keys.error()};
  }
  return config;
}

}  // namespace penstock::llama
