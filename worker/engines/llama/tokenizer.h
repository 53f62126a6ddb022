// Text to tokens and back, by a Hugging Face tokenizer.json of the byte-level BPE kind (GPT-2,
// Llama 3, Qwen 2, SmolLM ...).
//
// Byte-level: every byte has a token, so any bytes can be written down and come back the same,
// valid UTF-8 or not. The file spells bytes as printable characters (GPT-2's alphabet: "Ġ" is the
// space); here tokens are plain bytes.
//
// Added tokens such as <|eot_id|> and <think> are found in text before anything else, by the rule
// of added_tokens.h: control tokens only where the model's own template wrote them, never in what a
// user writes; others wherever they stand.
//
// An NFC normalizer is accepted and not carried out: text that is not in composed form gets other
// tokens than with the Hugging Face library, and is still read back exactly. Other normalizers are
// refused.
//
// Source: Hugging Face tokenizers documentation; Radford et al., GPT-2 (2019).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/added_tokens.h"
#include "worker/engines/llama/byte_pairs.h"
#include "worker/engines/llama/pretokenizer.h"

namespace penstock::llama {

class Tokenizer {
 public:
  static Result<Tokenizer> open(const std::string& path);
  // Reads a file that is in memory; `name` is for messages. The file may be hostile: every number,
  // name and reference in it is checked.
  static Result<Tokenizer> parse(std::string_view json, const std::string& name);

  // One more than the largest id.
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }

  // The tokens of a text that knows who wrote it. O(n log n).
  std::vector<int32_t> encode(const Text& text) const;
  // The tokens of a caller's text: no control token is among them.
  std::vector<int32_t> encode(std::string_view text) const {
    return encode(Text(text, Hand::kCaller));
  }
  // The tokens of a text that the operator wrote; its control tokens are among them.
  std::vector<int32_t> encode_with_control(std::string_view text) const {
    return encode(Text(text, Hand::kTemplate));
  }

  // The bytes of one token: may be part of a character; empty for special tokens and unused ids.
  std::string_view bytes(int32_t id) const;
  std::string decode(const std::vector<int32_t>& ids) const;

  // The id of an added token by its content, as in "<|eot_id|>".
  std::optional<int32_t> added(std::string_view content) const;

  // An added token that steers the model; nobody's text spells it.
  bool is_control(int32_t id) const { return controls_.contains(id); }

  // The token the post-processor puts before a prompt, if any.
  std::optional<int32_t> first() const { return first_; }
  std::string_view first_content() const { return first_content_; }

  // Length of the longest token that text can spell: n bytes take at least n / longest() tokens
  // (but for white space that an added token takes with it).
  size_t longest() const { return longest_; }

 private:
  friend class TokenizerReader;
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  using Ids = std::unordered_map<std::string, int32_t, Hash, std::equal_to<>>;

  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_text(std::string_view text, std::vector<int32_t>& ids) const;

  Pretokenizer pretokenizer_;
  BytePairs pairs_;
  std::vector<std::string> tokens_;  // by id: bytes; empty for special ones
  Ids whole_words_;                  // ignore_merges: words that are tokens as they stand
  Ids added_;
  AddedTokens added_tokens_;
  std::unordered_set<int32_t> controls_;
  std::optional<int32_t> first_;
  std::string first_content_;
  size_t longest_ = 1;
};

}  // namespace penstock::llama
