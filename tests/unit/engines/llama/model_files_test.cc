// Model folders that lie. Each must end in an error that names the file and what is wrong, and in
// nothing else.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/unit/engines/llama/fixtures.h"
#include "worker/engines/llama/config.h"
#include "worker/engines/llama/model.h"
#include "worker/engines/llama/safetensors.h"
#include "worker/engines/llama/weights.h"

namespace penstock::llama {
namespace {

const std::string kOne = kSource + "/tests/fixtures/llama/f32_one_layer";
const std::string kSharded = kSource + "/tests/fixtures/llama/bf16_sharded";

std::string with_header(const std::string& header, const std::string& data, uint64_t length) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}
std::string with_header(const std::string& header, const std::string& data) {
  return with_header(header, data, header.size());
}

// Parses from a heap copy of exactly the right size, so that the address sanitizer sees any step
// outside.
Result<Safetensors> parse(const std::string& file, std::vector<std::byte>& copy) {
  const auto* bytes = reinterpret_cast<const std::byte*>(file.data());
  copy.assign(bytes, bytes + file.size());
  copy.shrink_to_fit();
  return Safetensors::parse(copy, "dir/m.safetensors");
}

void expect_refused(const std::string& file, const std::string& expected) {
  std::vector<std::byte> copy;
  const auto parsed = parse(file, copy);
  ASSERT_FALSE(parsed) << expected;
  EXPECT_TRUE(parsed.error().message.starts_with("dir/m.safetensors: ")) << parsed.error().message;
  EXPECT_NE(parsed.error().message.find(expected), std::string::npos) << parsed.error().message;
}

TEST(SafetensorsTest, ReadsWhatIsThere) {
  std::vector<std::byte> copy;
  const auto parsed = parse(
      with_header(
          R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]},)"
          R"("a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},"z":{"dtype":"F32","shape":[0,5],"data_offsets":[8,8]}}   )",
          "12345678"),
      copy);
  ASSERT_TRUE(parsed) << parsed.error().message;
  ASSERT_EQ(parsed->tensors().size(), 3U);
  const TensorEntry& b = parsed->tensors().at("b");
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(std::memcmp(b.data.data(), "5678", 4), 0);
  EXPECT_EQ(parsed->tensors().at("a").dtype, std::nullopt) << "known, but not for computing";
}

TEST(SafetensorsTest, EveryLieInTheHeaderIsRefused) {
  const auto tensor = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string(R"({"x":{"dtype":)") + dtype + R"(,"shape":)" + shape +
           R"(,"data_offsets":)" + offsets + "}}";
  };
  const std::string data(16, 'd');
  const std::string good = tensor("\"F32\"", "[4]", "[0,16]");
  std::vector<std::byte> copy;
  ASSERT_TRUE(parse(with_header(good, data), copy));
  expect_refused("", "too short");
  expect_refused("1234567", "too short");
  expect_refused(with_header(good, data, 0), "JSON");
  expect_refused(with_header(good, data, good.size() + 17), "header is");
  expect_refused(with_header(good, data, UINT64_MAX), "header is 18446744073709551615");
  expect_refused(with_header(good, data, uint64_t{1} << 63), "header is");
  expect_refused(with_header("[]", data), "not a JSON object");
  expect_refused(with_header("{\"x\":7}", data), "tensor \"x\" has no dtype");
  expect_refused(with_header(tensor("7", "[4]", "[0,16]"), data), "no dtype");
  expect_refused(with_header(tensor("\"F33\"", "[4]", "[0,16]"), data), "unknown dtype \"F33\"");
  expect_refused(with_header(tensor("\"F32\"", "4", "[0,16]"), data), "no shape");
  expect_refused(with_header(tensor("\"F32\"", "[-4]", "[0,16]"), data), "dimension");
  expect_refused(with_header(tensor("\"F32\"", "[4.5]", "[0,16]"), data), "dimension");
  expect_refused(with_header(tensor("\"F32\"", "[1,1,1,1,1,1,1,1,4]", "[0,16]"), data),
                 "at most 8");
  expect_refused(with_header(tensor("\"F32\"", "[4]", "[0]"), data), "data_offsets");
  expect_refused(with_header(tensor("\"F32\"", "[4]", "[0,\"16\"]"), data), "data_offsets");
  expect_refused(with_header(tensor("\"F32\"", "[4]", "[16,0]"), data), "begin <= end");
  expect_refused(with_header(tensor("\"F32\"", "[5]", "[0,20]"), data), "<= 16");
  expect_refused(with_header(tensor("\"F32\"", "[4]", "[18446744073709551600,0]"), data),
                 "begin <= end");
  expect_refused(with_header(tensor("\"F32\"", "[3]", "[0,16]"), data),
                 "expected 12 for shape [3]");
  expect_refused(with_header(tensor("\"F16\"", "[4]", "[0,16]"), data), "expected 8");
  expect_refused(with_header(tensor("\"F32\"", "[4611686018427387904,4]", "[0,16]"), data),
                 "more than any file");
  expect_refused(
      with_header(tensor("\"F32\"", "[9223372036854775807,9223372036854775807]", "[0,16]"), data),
      "more than");
  expect_refused(with_header(tensor("\"F32\"", "[3]", "[4,16]"), data), "leave holes");
  expect_refused(with_header(tensor("\"F32\"", "[3]", "[0,12]"), data), "its tensors end at 12");
  expect_refused(with_header("{}", data), "its tensors end at 0");
}

TEST(SafetensorsTest, OverlapsAndDuplicatesAreRefused) {
  const std::string one = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const std::string data(12, 'd');
  expect_refused(
      with_header("{" + one + R"(,"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", data),
      "overlap");
  expect_refused(
      with_header("{" + one + R"(,"y":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                  data.substr(4)),
      "overlap");
  expect_refused(with_header("{" + one + "," + one + "}", data.substr(4)), "twice");
}

TEST(SafetensorsTest, HostileNamesAreCutShortAndMadePrintable) {
  const std::string name = std::string("\\n\\u001b[31m") + std::string(5000, 'n');
  std::vector<std::byte> copy;
  const auto parsed = parse(with_header("{\"" + name + "\":{}}", ""), copy);
  ASSERT_FALSE(parsed);
  EXPECT_LT(parsed.error().message.size(), 250U);
  EXPECT_EQ(parsed.error().message.find('\n'), std::string::npos);
  EXPECT_EQ(parsed.error().message.find('\x1b'), std::string::npos);
}

TEST(SafetensorsTest, AFileCutAnywhereIsRefused) {
  const std::string file = slurp(kOne + "/model.safetensors");
  std::vector<std::byte> copy;
  ASSERT_TRUE(parse(file, copy));
  for (size_t length = 0; length < file.size(); length += length < 3000 ? 1 : 4999) {
    ASSERT_FALSE(parse(file.substr(0, length), copy)) << length;
  }
  ASSERT_FALSE(parse(file.substr(0, file.size() - 1), copy));
  ASSERT_FALSE(parse(file + "x", copy));
}

TEST(SafetensorsTest, RandomDamageNeverReadsOutside) {
  const std::string file = slurp(kOne + "/model.safetensors").substr(0, 4096);
  std::mt19937 random(5);
  std::vector<std::byte> copy;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = file;
    for (int i = 0; i < 3; ++i) {
      damaged[random() % 1200] = static_cast<char>(random());
    }
    static_cast<void>(parse(damaged, copy));  // the sanitizers judge
  }
}

// ---- whole folders -----------------------------------------------------------------------------

std::string refusal(const std::string& folder) {
  const auto backend = reference_backend();
  const auto model = Model::open(folder, *backend);
  return model ? "" : model.error().message;
}

void expect_folder_refused(const std::string& folder, const std::string& file,
                           const std::string& what) {
  const std::string message = refusal(folder);
  EXPECT_NE(message.find(folder + "/" + file), std::string::npos) << message;
  EXPECT_NE(message.find(what), std::string::npos) << message;
}

void edit(const std::string& path, const std::string& what, const std::string& with) {
  std::string text = slurp(path);
  const size_t at = text.find(what);
  ASSERT_NE(at, text.npos) << what;
  spill(path, text.replace(at, what.size(), with));
}

TEST(ModelFolderTest, MissingFilesAreNamed) {
  const TempFolder empty;
  expect_folder_refused(empty.path(), "config.json", "cannot be opened");
  TempFolder folder(kOne);
  std::filesystem::remove(folder / "model.safetensors");
  expect_folder_refused(folder.path(), "model.safetensors", "cannot be opened");
  spill(folder / "model.safetensors", "");
  expect_folder_refused(folder.path(), "model.safetensors", "empty");
}

TEST(ModelFolderTest, TensorsMissingOrOfTheWrongShapeOrTypeAreNamed) {
  {
    TempFolder folder(kOne);
    edit(folder / "model.safetensors", "input_layernorm", "input_layernurm");
    expect_folder_refused(folder.path(), "model.safetensors",
                          "\"model.layers.0.input_layernorm.weight\" is missing");
  }
  {
    TempFolder folder(kOne);
    edit(folder / "config.json", "\"vocab_size\": 97", "\"vocab_size\": 98");
    expect_folder_refused(folder.path(), "model.safetensors",
                          "\"model.embed_tokens.weight\" has shape [97, 40], expected [98, 40]");
  }
  {
    TempFolder folder(kOne);
    edit(folder / "config.json", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
    expect_folder_refused(folder.path(), "model.safetensors", "layers.1");
  }
  {
    TempFolder folder(kOne);
    std::string text = slurp(folder / "model.safetensors");
    for (size_t at = text.find("F32"); at != text.npos; at = text.find("F32", at + 1)) {
      text.replace(at, 3, "I32");
    }
    spill(folder / "model.safetensors", text);
    expect_folder_refused(folder.path(), "model.safetensors", "is I32, expected F32, F16 or BF16");
  }
}

TEST(ModelFolderTest, ShardsMayNotLeadOutOfTheFolder) {
  const std::string shard = "model-00002-of-00003.safetensors";
  for (const char* name :
       {"../x", "/etc/passwd", "..", ".", "a/../b", "a..b", "", ".hidden", "a\\\\b", "x\\u0000y"}) {
    TempFolder folder(kSharded);
    edit(folder / "model.safetensors.index.json", shard, name);
    expect_folder_refused(folder.path(), "model.safetensors.index.json",
                          "a file in the same folder");
  }
  {
    TempFolder folder(kSharded);
    edit(folder / "model.safetensors.index.json", "\"" + shard + "\"", "7");
    expect_folder_refused(folder.path(), "model.safetensors.index.json",
                          "a file in the same folder");
  }
  {
    TempFolder folder(kSharded);
    edit(folder / "model.safetensors.index.json", shard, "nowhere.safetensors");
    expect_folder_refused(folder.path(), "nowhere.safetensors", "cannot be opened");
  }
  {
    TempFolder folder(kSharded);
    edit(folder / "model.safetensors.index.json", "weight_map", "weight_mop");
    expect_folder_refused(folder.path(), "model.safetensors.index.json", "weight_map");
  }
  {
    TempFolder folder(kSharded);  // the index says another shard than the one that has it
    edit(folder / "model.safetensors.index.json", shard, "model-00001-of-00003.safetensors");
    expect_folder_refused(folder.path(), "model-00001-of-00003.safetensors", "is missing");
  }
}

TEST(ModelFolderTest, UnalignedTensorsAreReadAllTheSame) {
  TempFolder folder(kOne);
  const std::string file = slurp(folder / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  spill(folder / "model.safetensors",
        with_header(file.substr(8, length) + " ", file.substr(8 + length)));
  EXPECT_EQ(refusal(folder.path()), "");
}

struct Lie {
  const char* key;
  const char* value;
};

TEST(ConfigTest, EveryKeyIsHeldToItsRange) {
  simdjson::dom::parser parser;
  const simdjson::dom::object fields = parser.load(kDemo + "/config.json").get_object();
  const auto config_with = [&](const std::string& key, const std::string& value) {
    std::string text = "{";
    for (const auto& [k, v] : fields) {
      if (k != key) {
        text += "\"" + std::string(k) + "\":" + simdjson::minify(v) + ",";
      }
    }
    return text + (value.empty() ? "\"end\":0}" : "\"" + key + "\":" + value + "}");
  };
  ASSERT_TRUE(parse_config(config_with("end", ""), "config.json"));
  const Lie lies[] = {
      {"hidden_size", ""},
      {"hidden_size", "0"},
      {"hidden_size", "-1"},
      {"hidden_size", "1e9"},
      {"hidden_size", "\"8\""},
      {"hidden_size", "99999999999999999999"},
      {"intermediate_size", ""},
      {"num_hidden_layers", "0"},
      {"num_hidden_layers", "100000"},
      {"num_attention_heads", "0"},
      {"num_attention_heads", "[]"},
      {"num_key_value_heads", "4"},
      {"num_key_value_heads", "0"},
      {"head_dim", "3"},
      {"head_dim", "-2"},
      {"rms_norm_eps", "-1"},
      {"rms_norm_eps", "\"x\""},
      {"rope_theta", "0"},
      {"rope_theta", "true"},
      {"rope_scaling", "7"},
      {"rope_scaling", "{\"type\":\"yarn\",\"factor\":2}"},
      {"rope_scaling", "{\"type\":\"linear\"}"},
      {"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}"},
      {"rope_scaling",
       "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":1,"
       "\"original_max_position_embeddings\":8}"},
      {"max_position_embeddings", "0"},
      {"max_position_embeddings", ""},
      {"vocab_size", "0"},
      {"vocab_size", "4294967296"},
      {"tie_word_embeddings", "1"},
      {"attention_bias", "\"no\""},
      {"eos_token_id", "1536"},
      {"eos_token_id", "[0,-1]"},
      {"eos_token_id", "\"</s>\""},
      {"bos_token_id", "1536"},
      {"hidden_act", "\"gelu\""},
      {"model_type", "\"gpt2\""},
      {"model_type", ""},
      {"quantization_config", "{}"},
  };
  for (const Lie& lie : lies) {
    const auto parsed = parse_config(config_with(lie.key, lie.value), "x/config.json");
    ASSERT_FALSE(parsed) << lie.key << ": " << lie.value;
    EXPECT_TRUE(parsed.error().message.starts_with("x/config.json: ")) << parsed.error().message;
    const bool names_key = parsed.error().message.find(lie.key) != std::string::npos;
    EXPECT_TRUE(names_key || parsed.error().message.find("JSON") != std::string::npos)
        << parsed.error().message;
  }
  EXPECT_FALSE(parse_config(config_with("rms_norm_eps", "NaN"), "x")) << "NaN is not JSON";
  EXPECT_FALSE(parse_config("[]", "x"));
  EXPECT_FALSE(parse_config("", "x"));
}

TEST(ConfigTest, KindsThatAreTheSameModelAreTaken) {
  const std::string shape =
      R"("hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":9,"max_position_embeddings":64)";
  const auto mistral =
      parse_config("{\"model_type\":\"mistral\",\"sliding_window\":null," + shape + "}", "x");
  ASSERT_TRUE(mistral) << mistral.error().message;
  EXPECT_EQ(mistral->kv_heads, 2);
  EXPECT_EQ(mistral->head_dim, 4);
  EXPECT_FALSE(
      parse_config("{\"model_type\":\"mistral\",\"sliding_window\":4096," + shape + "}", "x"));
  const auto qwen =
      parse_config("{\"model_type\":\"qwen2\",\"sliding_window\":4096," + shape + "}", "x");
  ASSERT_TRUE(qwen) << qwen.error().message;
  EXPECT_TRUE(qwen->qkv_bias);
  EXPECT_FALSE(qwen->output_bias);
  EXPECT_FALSE(
      parse_config("{\"model_type\":\"qwen2\",\"use_sliding_window\":true," + shape + "}", "x"));
  const auto nested = parse_config(
      "{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e5}"
      ",\"eos_token_id\":[1,2]," +
          shape + "}",
      "x");
  ASSERT_TRUE(nested) << nested.error().message;
  EXPECT_EQ(nested->rope_theta, 5e5);
  EXPECT_EQ(nested->eos, (std::vector<int32_t>{1, 2}));
}

}  // namespace
}  // namespace penstock::llama
