// Tokenizer::parse: tokenizer.json, piece by piece, nothing taken on trust.
#include <array>

#include "worker/engines/llama/json_file.h"
#include "worker/engines/llama/tokenizer.h"
#include "worker/engines/llama/unicode_class.h"

namespace penstock::llama {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxFileBytes = 256 << 20;  // several times the largest there is
constexpr int64_t kMaxTokens = 1 << 21;
constexpr size_t kMaxTokenBytes = 4096;
constexpr size_t kMaxAdded = 1 << 16;

// GPT-2's alphabet backwards: the byte a code point stands for, -1 for none. Printable bytes stand
// for themselves; the 68 others, in order, are U+0100 and up.
const std::array<int16_t, 0x144>& byte_alphabet() {
  static const auto table = [] {
    std::array<int16_t, 0x144> bytes;
    bytes.fill(-1);
    int next = 0x100;
    for (int16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      bytes[printable ? b : next++] = b;
    }
    return bytes;
  }();
  return table;
}

// The bytes a vocabulary entry spells; none if a character is outside the alphabet.
std::optional<std::string> spelled(std::string_view entry) {
  std::string bytes;
  for (size_t at = 0; at < entry.size();) {
    const Char c = char_at(entry, at);
    at += c.bytes;
    if (c.code >= byte_alphabet().size() || byte_alphabet()[c.code] < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(byte_alphabet()[c.code]);
  }
  return bytes;
}

}  // namespace

class TokenizerReader {
 public:
  TokenizerReader(dom::element root, std::string file) : root_(root), file_(std::move(file)) {}

  Result<Tokenizer> read() {
    for (const auto part : {&TokenizerReader::read_kind, &TokenizerReader::read_pretokenizer,
                            &TokenizerReader::read_vocabulary, &TokenizerReader::read_added,
                            &TokenizerReader::read_bytes, &TokenizerReader::read_merges,
                            &TokenizerReader::read_post_processor}) {
      const Status done = (this->*part)();
      if (!done) {
        return done.error();
      }
    }
    read_whole_words();
    return std::move(result_);
  }

 private:
  Error wrong(const std::string& what) const { return Error{file_ + ": " + what}; }

  static bool is_set(dom::element object, const char* key) {
    dom::element value;
    std::string_view text;
    bool flag = false;
    if (object[key].get(value) != simdjson::SUCCESS || value.is_null()) {
      return false;
    }
    if (value.get(text) == simdjson::SUCCESS) {
      return !text.empty();
    }
    return value.get(flag) != simdjson::SUCCESS || flag;
  }

  // Refuses what would make other tokens than byte-level BPE does.
  Status read_kind() {
    std::string_view type;
    if (root_["model"].get(model_) != simdjson::SUCCESS ||
        model_["type"].get(type) != simdjson::SUCCESS || type != "BPE") {
      return wrong("model: expected one of type \"BPE\", not " + quote(type));
    }
    for (const char* key : {"dropout", "unk_token", "continuing_subword_prefix",
                            "end_of_word_suffix", "byte_fallback"}) {
      if (is_set(model_, key)) {
        return wrong(std::string("model: ") + key + " is not implemented; expected null or false");
      }
    }
    std::string_view normalizer;
    const bool nfc =
        root_["normalizer"]["type"].get(normalizer) == simdjson::SUCCESS && normalizer == "NFC";
    if (is_set(root_, "normalizer") && !nfc) {
      return wrong("normalizer " + quote(normalizer) + " is not implemented; expected null or NFC");
    }
    return Ok{};
  }

  Status read_pretokenizer() {
    dom::element element;
    if (root_["pre_tokenizer"].get(element) != simdjson::SUCCESS || !element.is_object()) {
      return wrong("pre_tokenizer is missing: expected ByteLevel or a Sequence that ends with it");
    }
    auto parsed = Pretokenizer::parse(element, file_);
    if (!parsed) {
      return parsed.error();
    }
    result_.pretokenizer_ = *parsed;
    return Ok{};
  }

  // Makes room for `id`, or says why not.
  Status reserve(int64_t id, std::string_view token) {
    if (id < 0 || id >= kMaxTokens || token.empty() || token.size() > kMaxTokenBytes) {
      return wrong("token " + quote(token) + " has id " + std::to_string(id) +
                   ", expected ids from 0 to " + std::to_string(kMaxTokens - 1) + " and 1 to " +
                   std::to_string(kMaxTokenBytes) + " bytes");
    }
    if (id >= result_.size()) {
      result_.tokens_.resize(id + 1);
      taken_.resize(id + 1, false);
    }
    return Ok{};
  }

  Status read_vocabulary() {
    dom::object vocabulary;
    if (model_["vocab"].get(vocabulary) != simdjson::SUCCESS) {
      return wrong("model: vocab is missing: expected an object of tokens to ids");
    }
    for (const auto& [token, value] : vocabulary) {
      int64_t id = -1;
      if (value.get(id) != simdjson::SUCCESS) {
        return wrong("token " + quote(token) + " has no whole number as its id");
      }
      Status reserved = reserve(id, token);
      if (!reserved) {
        return reserved;
      }
      if (taken_[id] || !ids_.emplace(token, static_cast<int32_t>(id)).second) {
        return wrong("token " + quote(token) + ", id " + std::to_string(id) +
                     ": one of them is there twice");
      }
      taken_[id] = true;
      result_.tokens_[id] = spelled(token).value_or(std::string(token));
    }
    return Ok{};
  }

  Status read_added() {
    dom::array list;
    if (root_["added_tokens"].get(list) != simdjson::SUCCESS) {
      return Ok{};
    }
    if (list.size() > kMaxAdded) {
      return wrong("added_tokens has more than " + std::to_string(kMaxAdded) + " entries");
    }
    for (const dom::element entry : list) {
      Status added = read_added_token(entry);
      if (!added) {
        return added;
      }
    }
    return Ok{};
  }

  Status read_added_token(dom::element entry) {
    int64_t id = -1;
    std::string_view content;
    if (entry["id"].get(id) != simdjson::SUCCESS ||
        entry["content"].get(content) != simdjson::SUCCESS) {
      return wrong("added_tokens has an entry without a content and a whole number as its id");
    }
    Status reserved = reserve(id, content);
    if (!reserved) {
      return reserved;
    }
    const auto same = ids_.find(content);  // it may be in the vocabulary, too, under the same id
    const bool agrees = same == ids_.end() ? !taken_[id] : same->second == id;
    if (!agrees || !result_.added_.emplace(content, static_cast<int32_t>(id)).second) {
      return wrong("added token " + quote(content) + ", id " + std::to_string(id) +
                   ": one of them belongs to another token already");
    }
    taken_[id] = true;
    const bool special = is_set(entry, "special");
    result_.tokens_[id] = special ? "" : std::string(content);
    if (special) {
      result_.controls_.insert(static_cast<int32_t>(id));
    } else {
      result_.longest_ = std::max(result_.longest_, content.size());
    }
    if (!result_.added_tokens_.add({.content = std::string(content),
                                    .id = static_cast<int32_t>(id),
                                    .special = special,
                                    .single_word = is_set(entry, "single_word"),
                                    .lstrip = is_set(entry, "lstrip"),
                                    .rstrip = is_set(entry, "rstrip"),
                                    .normalized = is_set(entry, "normalized")})) {
      return wrong("added_tokens have more than " + std::to_string(AddedTokens::kMaxBytes) +
                   " bytes together");
    }
    return Ok{};
  }

  Status read_bytes() {
    for (int16_t code = 0; code < static_cast<int16_t>(byte_alphabet().size()); ++code) {
      if (byte_alphabet()[code] < 0) {
        continue;
      }
      std::string letter(1, static_cast<char>(code));
      if (code >= 0x80) {
        letter = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
      }
      const auto found = ids_.find(letter);
      if (found == ids_.end() || result_.controls_.contains(found->second)) {
        return wrong("model: vocab has no token for byte " + std::to_string(byte_alphabet()[code]) +
                     ", expected " + quote(letter) +
                     ": without all 256 not every text can be encoded");
      }
      result_.pairs_.set_byte(static_cast<uint8_t>(byte_alphabet()[code]), found->second);
    }
    return Ok{};
  }

  Status read_merges() {
    dom::array merges;
    if (model_["merges"].get(merges) != simdjson::SUCCESS) {
      return wrong("model: merges is missing: expected an array of pairs");
    }
    size_t number = 0;
    for (const dom::element merge : merges) {
      Status added = read_merge(merge, "merge " + std::to_string(number++));
      if (!added) {
        return added;
      }
    }
    return Ok{};
  }

  // "a b", or ["a", "b"] since tokenizers 0.20.
  Status read_merge(dom::element merge, const std::string& which) {
    std::string_view left;
    std::string_view right;
    dom::array pair;
    if (merge.get(left) == simdjson::SUCCESS) {
      const size_t space = left.find(' ');
      right = space == left.npos ? "" : left.substr(space + 1);
      left = left.substr(0, space);
    } else if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
               pair.at(0).get(left) != simdjson::SUCCESS ||
               pair.at(1).get(right) != simdjson::SUCCESS) {
      return wrong(which + " is no pair of tokens");
    }
    const auto a = ids_.find(left);
    const auto b = ids_.find(right);
    const auto joined = ids_.find(std::string(left) + std::string(right));
    if (a == ids_.end() || b == ids_.end() || joined == ids_.end()) {
      return wrong(which + ": " + quote(left) + " and " + quote(right) +
                   ": they and both together must be in vocab");
    }
    for (const int32_t id : {a->second, b->second, joined->second}) {
      if (result_.controls_.contains(id)) {
        return wrong(which + " makes or takes a control token; text could then spell it");
      }
    }
    if (!result_.pairs_.add_merge(a->second, b->second, joined->second)) {
      return wrong(which + ": " + quote(left) + " and " + quote(right) + " are there twice");
    }
    result_.longest_ = std::max(result_.longest_, result_.tokens_[joined->second].size());
    return Ok{};
  }

  // Only a token put first matters here: {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence":
  // ...}]}, alone or within a Sequence of processors.
  Status read_post_processor() {
    dom::element post;
    if (root_["post_processor"].get(post) != simdjson::SUCCESS || post.is_null()) {
      return Ok{};
    }
    dom::array processors;
    if (post["processors"].get(processors) != simdjson::SUCCESS) {
      return read_template(post);
    }
    for (const dom::element processor : processors) {
      Status read = read_template(processor);
      if (!read) {
        return read;
      }
    }
    return Ok{};
  }

  Status read_template(dom::element processor) {
    std::string_view content;
    if (processor["single"].at(0)["SpecialToken"]["id"].get(content) != simdjson::SUCCESS) {
      return Ok{};
    }
    result_.first_ = result_.added(content);
    result_.first_content_ = content;
    if (!result_.first_) {
      return wrong("post_processor puts " + quote(content) +
                   " first, which is not in added_tokens");
    }
    return Ok{};
  }

  void read_whole_words() {
    if (!is_set(model_, "ignore_merges")) {
      return;
    }
    for (const auto& [token, id] : ids_) {
      auto bytes = spelled(token);
      if (bytes && !result_.controls_.contains(id)) {
        result_.longest_ = std::max(result_.longest_, bytes->size());
        result_.whole_words_.emplace(std::move(*bytes), id);
      }
    }
  }

  dom::element root_;
  dom::element model_;
  std::string file_;
  Tokenizer result_;
  Tokenizer::Ids ids_;       // by the vocabulary's own spelling
  std::vector<bool> taken_;  // by id
};

Result<Tokenizer> Tokenizer::parse(std::string_view json, const std::string& name) {
  dom::parser parser;
  const auto root = parse_json_object(parser, json, name);
  if (!root) {
    return root.error();
  }
  return TokenizerReader(*root, name).read();
}

Result<Tokenizer> Tokenizer::open(const std::string& path) {
  const auto text = read_file(path, kMaxFileBytes);
  if (!text) {
    return text.error();
  }
  return parse(*text, path);
}

}  // namespace penstock::llama
