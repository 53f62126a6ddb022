#include "worker/engines/llama/pretokenizer.h"

#include <vector>

#include "worker/engines/llama/json_file.h"
#include "worker/engines/llama/unicode_class.h"

namespace penstock::llama {
namespace {

namespace dom = simdjson::dom;

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

bool is_break(uint32_t code) { return code == '\r' || code == '\n'; }

// End of the run of `kind` from `at`, of at most `most` characters.
size_t run_end(std::string_view text, size_t at, CharClass kind, size_t most = SIZE_MAX) {
  for (; at < text.size() && most > 0; --most) {
    const Char c = char_at(text, at);
    if (c.kind != kind) {
      break;
    }
    at += c.bytes;
  }
  return at;
}

// A letter without its case, as (?i:...) sees it: U+017F, the long s, is an s there.
uint32_t folded(uint32_t code) {
  if (code == 0x17F) {
    return 's';
  }
  return code >= 'A' && code <= 'Z' ? code + 32 : code;
}

// 's 't 're 've 'm 'll 'd at `at`: its end, or `at` if there is none.
size_t contraction_end(std::string_view text, size_t at, bool any_case) {
  if (text[at] != '\'' || at + 1 >= text.size()) {
    return at;
  }
  const Char first = char_at(text, at + 1);
  const size_t after = at + 1 + first.bytes;
  const uint32_t a = any_case ? folded(first.code) : first.code;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') {
    return after;
  }
  if (after >= text.size()) {
    return at;
  }
  const Char second = char_at(text, after);
  const uint32_t b = any_case ? folded(second.code) : second.code;
  const bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return two ? after + second.bytes : at;
}

// \s+(?!\S)|\s+ for the white space [at, end): all of it at the end of the text, else all but its
// last character, which goes with the word that follows, unless that leaves nothing.
size_t space_end(std::string_view text, size_t at, size_t end) {
  if (end == text.size()) {
    return end;
  }
  size_t last = at;
  for (size_t next = at; next < end; next += char_at(text, next).bytes) {
    last = next;
  }
  return last > at ? last : end;
}

size_t gpt2_end(std::string_view text, size_t at) {
  const size_t contraction = contraction_end(text, at, false);
  if (contraction > at) {
    return contraction;
  }
  const size_t from = text[at] == ' ' && at + 1 < text.size() ? at + 1 : at;
  const CharClass kind = char_at(text, from).kind;
  if (kind != CharClass::kSpace) {
    return run_end(text, from, kind);
  }
  return space_end(text, at, run_end(text, at, CharClass::kSpace));
}

// [^\r\n\p{L}\p{N}]?\p{L}+ at `at`: its end, or `at`.
size_t letters_end(std::string_view text, size_t at, const Char& first) {
  if (first.kind == CharClass::kLetter) {
    return run_end(text, at, CharClass::kLetter);
  }
  if (first.kind == CharClass::kNumber || is_break(first.code)) {
    return at;
  }
  const size_t from = at + first.bytes;
  const size_t end = run_end(text, from, CharClass::kLetter);
  return end > from ? end : at;
}

//  ?[^\s\p{L}\p{N}]+[\r\n]* at `at`: its end, or `at`.
size_t symbols_end(std::string_view text, size_t at) {
  const size_t from = text[at] == ' ' ? at + 1 : at;
  size_t end = run_end(text, from, CharClass::kOther);
  if (end == from) {
    return at;
  }
  while (end < text.size() && is_break(static_cast<unsigned char>(text[end]))) {
    ++end;
  }
  return end;
}

size_t llama3_end(std::string_view text, size_t at, size_t most_digits) {
  const size_t contraction = contraction_end(text, at, true);
  if (contraction > at) {
    return contraction;
  }
  const Char first = char_at(text, at);
  const size_t letters = letters_end(text, at, first);
  if (letters > at) {
    return letters;
  }
  if (first.kind == CharClass::kNumber) {
    return run_end(text, at, CharClass::kNumber, most_digits);
  }
  const size_t symbols = symbols_end(text, at);
  if (symbols > at) {
    return symbols;
  }
  const size_t end = run_end(text, at, CharClass::kSpace);
  const size_t last_break = text.substr(at, end - at).find_last_of("\r\n");
  return last_break != text.npos ? at + last_break + 1 : space_end(text, at, end);
}

bool get_bool(dom::element object, const char* key, bool absent) {
  bool value = absent;
  return object[key].get(value) == simdjson::SUCCESS ? value : absent;
}

}  // namespace

size_t Pretokenizer::part_end(std::string_view text, size_t at) const {
  if (!lone_digits_) {
    return text.size();
  }
  Char c = char_at(text, at);
  if (c.kind == CharClass::kNumber) {
    return at + c.bytes;
  }
  while (at < text.size() && (c = char_at(text, at)).kind != CharClass::kNumber) {
    at += c.bytes;
  }
  return at;
}

size_t Pretokenizer::word_end(std::string_view text, size_t at) const {
  switch (pattern_) {
    case Pattern::kGpt2:
      return gpt2_end(text, at);
    case Pattern::kLlama3:
      return llama3_end(text, at, 3);
    case Pattern::kQwen2:
      return llama3_end(text, at, 1);
    case Pattern::kNone:
      break;
  }
  return text.size();
}

Result<Pretokenizer> Pretokenizer::parse(dom::element element, const std::string& file) {
  Pretokenizer result;
  dom::array steps;
  std::vector<dom::element> all = {element};
  if (element["pretokenizers"].get(steps) == simdjson::SUCCESS) {
    all.assign(steps.begin(), steps.end());
  }
  for (const dom::element step : all) {
    const Status added = result.add_step(step, file);
    if (!added) {
      return added.error();
    }
  }
  if (!result.byte_level_) {
    return Error{file +
                 ": pre_tokenizer has no ByteLevel step; only byte-level BPE is implemented"};
  }
  return result;
}

// Steps work on what earlier ones cut, so their order matters: Digits, then one pattern, then
// bytes.
Status Pretokenizer::add_step(dom::element step, const std::string& file) {
  std::string_view type;
  if (step["type"].get(type) != simdjson::SUCCESS || byte_level_) {
    return Error{file +
                 ": pre_tokenizer is not a known form: expected ByteLevel, last in any Sequence"};
  }
  if (type == "ByteLevel") {
    return add_byte_level(step, file);
  }
  if (type == "Split") {
    return add_split(step, file);
  }
  if (type == "Digits" && get_bool(step, "individual_digits", false) &&
      pattern_ == Pattern::kNone) {
    lone_digits_ = true;
    return Ok{};
  }
  return Error{file + ": pre_tokenizer step " + quote(type) +
               " is not implemented: expected Digits (individual), Split or ByteLevel"};
}

Status Pretokenizer::add_byte_level(dom::element step, const std::string& file) {
  byte_level_ = true;
  add_prefix_space_ = get_bool(step, "add_prefix_space", true);
  if (!get_bool(step, "use_regex", true)) {
    return Ok{};
  }
  if (pattern_ != Pattern::kNone) {
    return Error{file +
                 ": pre_tokenizer splits twice: ByteLevel after Split must have use_regex false"};
  }
  pattern_ = Pattern::kGpt2;
  return Ok{};
}

Status Pretokenizer::add_split(dom::element step, const std::string& file) {
  std::string_view regex;
  std::string_view behavior;
  if (step["pattern"]["Regex"].get(regex) != simdjson::SUCCESS ||
      step["behavior"].get(behavior) != simdjson::SUCCESS || pattern_ != Pattern::kNone) {
    return Error{file +
                 ": pre_tokenizer Split is not a known form: expected one, with a Regex pattern"};
  }
  if (regex == kGpt2Regex) {
    pattern_ = Pattern::kGpt2;
  } else if (regex == kLlama3Regex) {
    pattern_ = Pattern::kLlama3;
  } else if (regex == kQwen2Regex) {
    pattern_ = Pattern::kQwen2;
  } else {
    return Error{file + ": pre_tokenizer pattern " + quote(regex) +
                 " is not implemented: expected that of GPT-2, Llama 3 or Qwen 2"};
  }
  // The patterns match every character, so keeping matches and removing the rest is the same as
  // isolating them.
  const bool inverted = get_bool(step, "invert", false);
  if ((behavior == "Isolated" && !inverted) || (behavior == "Removed" && inverted)) {
    return Ok{};
  }
  return Error{file + ": pre_tokenizer Split behavior " + quote(behavior) +
               " is not implemented: expected \"Isolated\""};
}

}  // namespace penstock::llama
