#include "tests/gpu/flat_model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <sstream>

#include "shared/base/fd.h"

namespace penstock::llama {
namespace {

// Gives each weight its tensor by name; the names are Hugging Face's.
using Finder = std::function<ConstTensor(const std::string& name, int64_t rows, int64_t cols)>;

void fill_weights(ModelFiles& files, const Finder& find) {
  const ModelConfig& c = files.config;
  Weights& w = files.weights;
  const int64_t query = c.heads * c.head_dim;
  const int64_t key = c.kv_heads * c.head_dim;
  const auto bias = [&](bool there, const std::string& name, int64_t size) {
    return there ? find(name, 1, size) : ConstTensor{};
  };
  w.embedding = find("model.embed_tokens.weight", c.vocabulary, c.hidden);
  w.norm = find("model.norm.weight", 1, c.hidden);
  w.logits = c.tied_embeddings ? w.embedding : find("lm_head.weight", c.vocabulary, c.hidden);
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const std::string attention = layer + "self_attn.";
    const std::string mlp = layer + "mlp.";
    LayerWeights l;
    l.attention_norm = find(layer + "input_layernorm.weight", 1, c.hidden);
    l.query = find(attention + "q_proj.weight", query, c.hidden);
    l.key = find(attention + "k_proj.weight", key, c.hidden);
    l.value = find(attention + "v_proj.weight", key, c.hidden);
    l.query_bias = bias(c.qkv_bias, attention + "q_proj.bias", query);
    l.key_bias = bias(c.qkv_bias, attention + "k_proj.bias", key);
    l.value_bias = bias(c.qkv_bias, attention + "v_proj.bias", key);
    l.output = find(attention + "o_proj.weight", c.hidden, query);
    l.output_bias = bias(c.output_bias, attention + "o_proj.bias", c.hidden);
    l.mlp_norm = find(layer + "post_attention_layernorm.weight", 1, c.hidden);
    l.gate = find(mlp + "gate_proj.weight", c.intermediate, c.hidden);
    l.up = find(mlp + "up_proj.weight", c.intermediate, c.hidden);
    l.gate_bias = bias(c.mlp_bias, mlp + "gate_proj.bias", c.intermediate);
    l.up_bias = bias(c.mlp_bias, mlp + "up_proj.bias", c.intermediate);
    l.down = find(mlp + "down_proj.weight", c.hidden, c.intermediate);
    l.down_bias = bias(c.mlp_bias, mlp + "down_proj.bias", c.hidden);
    w.layers.push_back(l);
  }
}

void set(ModelConfig& c, const std::string& key, const std::string& value) {
  const std::map<std::string, int64_t*> integers = {
      {"hidden", &c.hidden},         {"intermediate", &c.intermediate},  {"layers", &c.layers},
      {"heads", &c.heads},           {"kv_heads", &c.kv_heads},          {"head_dim", &c.head_dim},
      {"vocabulary", &c.vocabulary}, {"max_positions", &c.max_positions}};
  const std::map<std::string, bool*> flags = {{"tied_embeddings", &c.tied_embeddings},
                                              {"qkv_bias", &c.qkv_bias},
                                              {"output_bias", &c.output_bias},
                                              {"mlp_bias", &c.mlp_bias}};
  const std::map<std::string, double*> reals = {
      {"rope_theta", &c.rope_theta},
      {"rope_factor", &c.rope_scaling.factor},
      {"rope_low", &c.rope_scaling.low_freq_factor},
      {"rope_high", &c.rope_scaling.high_freq_factor},
      {"rope_original", &c.rope_scaling.original_max_positions}};
  if (const auto i = integers.find(key); i != integers.end()) {
    *i->second = std::stoll(value);
  } else if (const auto f = flags.find(key); f != flags.end()) {
    *f->second = value == "1";
  } else if (const auto r = reals.find(key); r != reals.end()) {
    *r->second = std::stod(value);
  } else if (key == "norm_epsilon") {
    c.norm_epsilon = std::stof(value);
  } else if (key == "rope_kind") {
    c.rope_scaling.kind =
        value == "llama3" ? RopeScaling::Kind::kLlama3 : RopeScaling::Kind::kLinear;
  }
}

std::vector<int32_t> read_ids(std::istream& in) {
  size_t count = 0;
  in >> count;
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) {
    in >> id;
  }
  return ids;
}

constexpr int64_t kStretch = 1 << 20;  // numbers

// kStretch numbers in [-scale, scale), or ones if that is 0, in a file that lies in memory.
Fd make_stretch(DType dtype, float scale, std::mt19937_64& random) {
  const int64_t bytes = bytes_of(dtype);
  std::vector<std::byte> data(kStretch * bytes);
  std::uniform_real_distribution<float> uniform(-scale, scale);
  for (int64_t i = 0; i < kStretch; ++i) {
    const float value = scale == 0 ? 1.0F : uniform(random);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const auto high = static_cast<uint16_t>(bits >> 16);
    std::memcpy(data.data() + i * bytes,
                dtype == DType::kF32 ? static_cast<const void*>(&bits) : &high, bytes);
  }
  Fd file(::memfd_create("weights", MFD_CLOEXEC));
  return file.valid() &&
                 ::write(file.get(), data.data(), data.size()) == static_cast<ssize_t>(data.size())
             ? std::move(file)
             : Fd();
}

// `bytes` of memory that show the file's `stretch` bytes over and over; null where there is no
// room.
std::shared_ptr<void> see_again(int file, int64_t stretch, int64_t bytes) {
  void* const whole = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) {
    return nullptr;
  }
  std::shared_ptr<void> map(whole, [bytes](void* at) { ::munmap(at, bytes); });
  for (int64_t at = 0; at < bytes; at += stretch) {
    if (::mmap(static_cast<std::byte*>(whole) + at, std::min(stretch, bytes - at), PROT_READ,
               MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
      return nullptr;
    }
  }
  return map;
}

}  // namespace

Result<FlatModel> read_flat(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return Error{path + " cannot be read"};
  }
  FlatModel model;
  std::map<std::string, std::pair<ConstTensor, int64_t>> found;
  std::vector<std::byte>& data = model.files.weights.copies.emplace_back();
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string what, name, dtype;
    words >> what;
    if (what == "set") {
      words >> name >> dtype;
      set(model.files.config, name, dtype);
    } else if (what == "tensor") {
      ConstTensor tensor;
      int64_t offset = 0;
      words >> name >> dtype >> tensor.rows >> tensor.cols >> offset;
      tensor.dtype = dtype == "F32" ? DType::kF32 : dtype == "F16" ? DType::kF16 : DType::kBF16;
      found[name] = {tensor, offset};
    } else if (what == "case") {
      std::vector<int32_t> prompt = read_ids(words);
      model.cases.push_back({std::move(prompt), read_ids(words)});
    } else if (what == "data") {
      size_t bytes = 0;
      words >> bytes;
      data.resize(bytes);
      file.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(bytes));
      break;
    }
  }
  std::string missing;
  fill_weights(model.files, [&](const std::string& name, int64_t rows, int64_t cols) {
    const auto at = found.find(name);
    if (at == found.end() || at->second.first.rows != rows || at->second.first.cols != cols ||
        at->second.second + at->second.first.bytes() > static_cast<int64_t>(data.size())) {
      missing = name;
      return ConstTensor{};
    }
    ConstTensor tensor = at->second.first;
    tensor.data = data.data() + at->second.second;
    return tensor;
  });
  return missing.empty() ? Result<FlatModel>(std::move(model))
                         : Error{path + " lacks tensor " + missing};
}

Result<FlatModel> random_model(const ModelConfig& config, DType dtype, uint64_t seed) {
  FlatModel model;
  model.files.config = config;
  std::mt19937_64 random(seed);
  std::map<float, Fd> stretches;  // by their largest number; 0: ones
  bool mapped = true;
  fill_weights(model.files, [&](const std::string& name, int64_t rows, int64_t cols) {
    const bool norm = name.find("norm") != std::string::npos;
    const float scale = norm ? 0.0F
                        : name.find("embed") != std::string::npos
                            ? 1.0F
                            : std::sqrt(3.0F / static_cast<float>(std::max<int64_t>(cols, 1)));
    Fd& stretch = stretches[scale];
    if (!stretch.valid()) {
      stretch = make_stretch(dtype, scale, random);
    }
    const int64_t bytes = rows * cols * bytes_of(dtype);
    auto map =
        stretch.valid() ? see_again(stretch.get(), kStretch * bytes_of(dtype), bytes) : nullptr;
    mapped = mapped && map != nullptr;
    model.maps.push_back(map);
    return ConstTensor{static_cast<const std::byte*>(map.get()), dtype, rows, cols};
  });
  return mapped ? Result<FlatModel>(std::move(model))
                : Error{std::string("no memory for made-up weights: ") + std::strerror(errno)};
}

ModelConfig shape_1b() {
  ModelConfig c;
  c.hidden = 2048;
  c.intermediate = 8192;
  c.layers = 16;
  c.heads = 32;
  c.kv_heads = 8;
  c.head_dim = 64;
  c.vocabulary = 128256;
  c.max_positions = 8192;
  c.norm_epsilon = 1e-5F;
  c.rope_theta = 500000;
  c.tied_embeddings = true;
  return c;
}

ModelConfig shape_8b() {
  ModelConfig c = shape_1b();
  c.hidden = 4096;
  c.intermediate = 14336;
  c.layers = 32;
  c.head_dim = 128;
  c.tied_embeddings = false;
  return c;
}

}  // namespace penstock::llama
