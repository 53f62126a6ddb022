// Cuts text into the words that byte pair encoding works on, as the "pre_tokenizer" of
// tokenizer.json says.
//
// The format allows any regular expression; models use a few well-known ones. Those are scanned by
// hand here, one pass, no backtracking, and any other is refused by name rather than approximated:
//
//   GPT-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   Llama 3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//   ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ Qwen 2   the same with \p{N} for \p{N}{1,3}
//
// Sources: GPT-2's encoder.py (OpenAI), the tokenizer.json files of Llama 3 and Qwen 2, and the
// Hugging Face tokenizers documentation of ByteLevel, Digits, Split and Sequence.
#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::llama {

class Pretokenizer {
 public:
  // Reads the element "pre_tokenizer"; `file` is for messages.
  static Result<Pretokenizer> parse(simdjson::dom::element element, const std::string& file);

  // A space goes before text that does not begin with one.
  bool adds_prefix_space() const { return add_prefix_space_; }

  // Calls word(std::string_view) for each word of text in order; together they are the text.
  // O(bytes).
  template <typename Word>
  void split(std::string_view text, Word&& word) const {
    for (size_t at = 0; at < text.size();) {
      const std::string_view part = text.substr(at, part_end(text, at) - at);
      for (size_t from = 0; from < part.size();) {
        const size_t end = word_end(part, from);
        word(part.substr(from, end - from));
        from = end;
      }
      at += part.size();
    }
  }

 private:
  enum class Pattern { kNone, kGpt2, kLlama3, kQwen2 };

  Status add_step(simdjson::dom::element step, const std::string& file);
  Status add_byte_level(simdjson::dom::element step, const std::string& file);
  Status add_split(simdjson::dom::element step, const std::string& file);

  // Digits first, if they stand alone, then the pattern within what is left.
  size_t part_end(std::string_view text, size_t at) const;
  size_t word_end(std::string_view text, size_t at) const;

  Pattern pattern_ = Pattern::kNone;
  bool lone_digits_ = false;
  bool byte_level_ = false;
  bool add_prefix_space_ = false;
};

}  // namespace penstock::llama
