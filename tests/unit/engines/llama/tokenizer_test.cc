#include "worker/engines/llama/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "tests/unit/engines/llama/fixtures.h"

namespace penstock::llama {
namespace {

const std::string kCases = kSource + "/tests/fixtures/tokenizer";
const std::string kLlama3 = kSource + "/tests/fixtures/llama/bf16_llama3_rope/tokenizer.json";
const std::string kGpt2 = kSource + "/tests/fixtures/llama/bf16_sharded/tokenizer.json";

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  size_t count = 0;
  for (size_t at = text.find(what); at != text.npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
    ++count;
  }
  EXPECT_GT(count, 0U) << what;
  return text;
}

Tokenizer good(const std::string& json) {
  auto parsed = Tokenizer::parse(json, "tokenizer.json");
  EXPECT_TRUE(parsed) << parsed.error().message;
  return std::move(*parsed);
}

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

TEST(TokenizerTest, EncodesAndDecodesEveryFixtureCase) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kCases)) {
    simdjson::dom::parser parser;
    const simdjson::dom::element root = parser.load(entry.path().string());
    const auto tokenizer =
        Tokenizer::open(kSource + "/" + std::string(root["tokenizer"].get_string().value()));
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (const auto c : root["cases"].get_array()) {
      const std::string text(c["text"].get_string().value());
      const auto ids = numbers<int32_t>(c["ids"].value());
      EXPECT_EQ(tokenizer->encode(text), ids) << entry.path() << ": " << text;
      EXPECT_EQ(tokenizer->decode(ids), text);
    }
    for (const auto c : root["special"].get_array()) {
      const std::string text(c["text"].get_string().value());
      EXPECT_EQ(tokenizer->encode_with_control(text), numbers<int32_t>(c["ids"].value())) << text;
    }
    for (const auto c : root["decode"].get_array()) {
      EXPECT_EQ(tokenizer->decode(numbers<int32_t>(c["ids"].value())),
                from_hex(c["hex"].get_string().value()));
    }
    ++files;
  }
  EXPECT_GT(files, 0U);
}

TEST(TokenizerTest, AnyBytesComeBackTheSame) {
  std::mt19937 random(3);
  const std::string_view alphabet =
      " \n\t'sS0aZ\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80\xFF\xC0\x80\xED\xA0\x80";
  for (const std::string& path : {kLlama3, kGpt2, kDemo + "/tokenizer.json"}) {
    const auto tokenizer = *Tokenizer::open(path);
    for (int round = 0; round < 3000; ++round) {
      std::string bytes(random() % 40, '\0');
      for (char& c : bytes) {
        c = random() % 2 == 0 ? static_cast<char>(random()) : alphabet[random() % alphabet.size()];
      }
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes) << path;
    }
  }
}

TEST(TokenizerTest, ControlTokensNeverComeFromText) {
  const auto tokenizer = *Tokenizer::open(kLlama3);
  for (const char* text : {"<|eot_id|>", "a<|begin_of_text|>b", "<|start_header_id|>system"}) {
    for (const int32_t id : tokenizer.encode(text)) {
      EXPECT_LT(id, 307) << text;  // the added tokens are 307 and up
      EXPECT_FALSE(tokenizer.bytes(id).empty());
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  EXPECT_EQ(tokenizer.first(), 307);
  EXPECT_EQ(tokenizer.added("<|eot_id|>"), 309);
  EXPECT_EQ(tokenizer.bytes(309), "");
}

TEST(TokenizerTest, AMillionLettersWithoutASpaceTakeNoQuadraticTime) {
  const auto tokenizer = *Tokenizer::open(kDemo + "/tokenizer.json");
  std::string text(1 << 20, 'a');
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>('a' + (i * i >> 3) % 26);
  }
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  // Quadratic would be hours; sanitizers and busy machines get their share.
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(60));
}

TEST(TokenizerTest, LongSAndQwenDigitsFollowTheirPatterns) {
  const std::string json = slurp(kLlama3);
  const std::string qwen = replaced(json, "\\\\p{N}{1,3}", "\\\\p{N}");
  std::vector<std::string> words;
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(qwen);
  const auto pretokenizer = *Pretokenizer::parse(root["pre_tokenizer"].value(), "file");
  pretokenizer.split("1234 it'\xC5\xBF no",
                     [&](std::string_view word) { words.emplace_back(word); });
  EXPECT_EQ(words, (std::vector<std::string>{"1", "2", "3", "4", " it", "'\xC5\xBF", " no"}));
}

TEST(TokenizerTest, LoneDigitsAreCutBeforeTheRest) {
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(std::string(
      R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]})"));
  std::vector<std::string> words;
  const auto pretokenizer = *Pretokenizer::parse(root, "file");
  pretokenizer.split("in  1984 we", [&](std::string_view word) { words.emplace_back(word); });
  EXPECT_EQ(words, (std::vector<std::string>{"in", "  ", "1", "9", "8", "4", " we"}));
}

struct Hostile {
  const char* what;  // replaced
  const char* with;
  const char* expected;  // in the message
};

TEST(TokenizerTest, HostileFilesAreRefusedByNameAndReason) {
  const Hostile cases[] = {
      {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "Unigram"},
      {"\"normalizer\": null", "\"normalizer\": {\"type\":\"Lowercase\"}", "normalizer"},
      {"\"unk_token\": null", "\"unk_token\": \"<unk>\"", "unk_token"},
      {"\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"},
      {"\"merges\"", "\"Merges\"", "merges"},
      {"\"vocab\"", "\"Vocab\"", "vocab"},
      {"\"!\": 0", "\"!\": -1", "id -1"},
      {"\"!\": 0", "\"!\": 99999999999", "id 99999999999"},
      {"\"!\": 0", "\"!\": 1.5", "whole number"},
      {"\"!\": 0", "\"!\": 1", "twice"},
      {"\"!\": 0", "\"\\\"\": 0", "twice"},
      {"\"!\": 0", "\"!!\": 0", "byte 33"},
      {"\\\\p{N}{1,3}", "\\\\p{N}{1,9}", "not implemented"},
      {"\"Isolated\"", "\"MergedWithNext\"", "MergedWithNext"},
      {"\"use_regex\": false", "\"use_regex\": true", "splits twice"},
      {"\"id\": 309", "\"id\": 308", "another token"},
      {"\"id\": 309", "\"id\": 5", "another token"},
      {"\"id\": 309", "\"id\": \"x\"", "added_tokens"},
      {"\"ids\"", "\"single\": [], \"ids\"", ""},
  };
  std::string json = slurp(kLlama3);
  simdjson::dom::parser parser;
  json = simdjson::minify(parser.parse(json).value());
  for (const Hostile& c : cases) {
    const std::string mutated =
        replaced(json, replaced(std::string(c.what) + " ", " ", ""), c.with);
    const auto parsed = Tokenizer::parse(mutated, "here/tokenizer.json");
    if (*c.expected == '\0') {
      EXPECT_TRUE(parsed) << parsed.error().message;
      continue;
    }
    ASSERT_FALSE(parsed) << c.what << " as " << c.with;
    EXPECT_TRUE(parsed.error().message.starts_with("here/tokenizer.json: "))
        << parsed.error().message;
    EXPECT_NE(parsed.error().message.find(c.expected), std::string::npos) << parsed.error().message;
  }
}

TEST(TokenizerTest, HostileMergesAreRefused) {
  const std::string json = slurp(kGpt2);
  const std::string first = "\"t h\"";
  for (const char* merge :
       {"\"t\"", "\"t nonsense\"", "\"t h h\"", "7", "[\"t\"]", "[\"t\",\"h\",\"e\"]",
        "\"t h\", \"t h\"", "\"<|endoftext|> h\"", "[[[[]]]]"}) {
    const auto parsed = Tokenizer::parse(replaced(json, first, merge), "t.json");
    ASSERT_FALSE(parsed) << merge;
    EXPECT_NE(parsed.error().message.find("merge "), std::string::npos) << parsed.error().message;
  }
}

TEST(TokenizerTest, FilesCutAnywhereOrNestedDeeplyAreRefused) {
  const std::string json = slurp(kGpt2);
  for (size_t length = 0; length + 2 < json.size(); length += 97) {
    EXPECT_FALSE(Tokenizer::parse(json.substr(0, length), "t.json")) << length;
  }
  EXPECT_FALSE(Tokenizer::parse(std::string(100'000, '['), "t.json"));
  EXPECT_FALSE(Tokenizer::parse("[]", "t.json"));
  EXPECT_FALSE(Tokenizer::open(kSource));
  EXPECT_FALSE(Tokenizer::open(kSource + "/nothing here"));
}

// ---- added tokens ------------------------------------------------------------------------------

// Llama 3's fixture with these more: ids from 310 on.
Tokenizer with_added(const std::vector<std::string>& entries) {
  std::string more;
  int id = 311;
  for (const std::string& entry : entries) {
    more += ",{\"id\":" + std::to_string(id++) + "," + entry + "}";
  }
  simdjson::dom::parser parser;
  const std::string json = simdjson::minify(parser.parse(slurp(kLlama3)).value());
  const size_t end = json.find("],\"normalizer\"");
  EXPECT_NE(end, json.npos);
  return good(json.substr(0, end) + more + json.substr(end));
}

std::vector<int32_t> joined(const std::vector<std::vector<int32_t>>& parts) {
  std::vector<int32_t> all;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST(TokenizerTest, AddedTokensThatAreNotSpecialAreFoundInAnybodysText) {
  const Tokenizer t = with_added(
      {R"("content":"<think>","special":false)", R"("content":"<think>x","special":false)"});
  EXPECT_EQ(t.encode("a<think>b"), joined({t.encode("a"), {311}, t.encode("b")}));
  EXPECT_EQ(t.encode("<think>x<think>"), (std::vector<int32_t>{312, 311})) << "the longest first";
  EXPECT_EQ(t.decode(t.encode("a <think>\n<|eot_id|>")), "a <think>\n<|eot_id|>")
      << "its text is part of an answer";
  EXPECT_FALSE(t.is_control(311));
  EXPECT_TRUE(t.is_control(309));
  const std::string many(1 << 16, '<');
  EXPECT_EQ(t.decode(t.encode(many)), many);
}

TEST(TokenizerTest, ControlTokensAreWrittenByTheTemplateAloneAndNobodySpoilsThem) {
  const Tokenizer t = with_added({R"("content":"><","special":false)"});
  Text text("<|eot_id|>", Hand::kTemplate);
  text.append("<|eot_id|>", Hand::kCaller);
  text.append("<|eot_id|>", Hand::kTemplate);
  EXPECT_EQ(t.encode(text), joined({{309}, t.encode("<|eot_id|>"), {309}}));
  for (size_t cut = 1; cut < 10; ++cut) {
    Text mixed(std::string_view("<|eot_id|>").substr(0, cut), Hand::kTemplate);
    mixed.append(std::string_view("<|eot_id|>").substr(cut), Hand::kCaller);
    EXPECT_EQ(t.encode(mixed), t.encode("<|eot_id|>")) << "letters, where both had a part";
  }
  Text beside("x>", Hand::kCaller);
  beside.append("<|eot_id|>", Hand::kTemplate);
  EXPECT_EQ(t.encode(beside), joined({t.encode("x>"), {309}})) << "no token of both hands";
}

TEST(TokenizerTest, AddedTokensTakeTheSpaceAndStandAloneAsTheirFlagsSay) {
  const Tokenizer t =
      with_added({R"("content":"[L]","lstrip":true)", R"("content":"[R]","rstrip":true)",
                  R"("content":"alone","single_word":true)",
                  R"("content":"[S]","special":true,"lstrip":true,"rstrip":true)"});
  EXPECT_EQ(t.encode("a \n\xE3\x80\x80[L] b"), joined({t.encode("a"), {311}, t.encode(" b")}));
  EXPECT_EQ(t.encode("a [R] \t b"), joined({t.encode("a "), {312}, t.encode("b")}));
  EXPECT_EQ(t.encode("[R]  [L]"), (std::vector<int32_t>{312, 311})) << "space is taken once";
  EXPECT_EQ(t.encode("x-alone."), joined({t.encode("x-"), {313}, t.encode(".")}));
  for (const char* beside : {"alonex", "xalone", "alone_", "9alone",
                             "\xC3\xA9"
                             "alone"}) {
    for (const int32_t id : t.encode(beside)) {
      EXPECT_NE(id, 313) << beside;
    }
  }
  Text text("a ", Hand::kCaller);
  text.append("[S]", Hand::kTemplate);
  text.append(" b", Hand::kCaller);
  EXPECT_EQ(t.encode(text), joined({t.encode("a"), {314}, t.encode("b")}));
  Text word("x", Hand::kCaller);
  word.append("alone", Hand::kTemplate);
  EXPECT_EQ(t.encode(word), joined({t.encode("x"), {313}}))
      << "a caller's letter beside it takes no token from the template";
}

TEST(TokenizerTest, TokensThatAreNotNormalizedAreFoundFirst) {
  const Tokenizer t =
      with_added({R"("content":"ab","normalized":true)", R"("content":"bc","normalized":false)"});
  EXPECT_EQ(t.encode("abc"), joined({t.encode("a"), {312}}));
  EXPECT_EQ(t.encode("abab"), (std::vector<int32_t>{311, 311}));
}

}  // namespace
}  // namespace penstock::llama
