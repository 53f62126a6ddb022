#include "worker/engines/llama/tokenizer.h"

namespace penstock::llama {

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode_text(text, ids);
  return ids;
}

void Tokenizer::encode_text(std::string_view text, std::vector<int32_t>& ids) const {
  if (pretokenizer_.adds_prefix_space() && !text.empty() && text.front() != ' ') {
    const std::string spaced = ' ' + std::string(text);
    pretokenizer_.split(spaced, [&](std::string_view word) { encode_word(word, ids); });
    return;
  }
  pretokenizer_.split(text, [&](std::string_view word) { encode_word(word, ids); });
}

void Tokenizer::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  const auto whole = whole_words_.find(word);
  if (whole != whole_words_.end()) {
    ids.push_back(whole->second);
    return;
  }
  pairs_.join(word, ids);
}

std::vector<int32_t> Tokenizer::encode_with_control(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t plain = 0;  // where the text not yet encoded begins
  for (size_t at = 0; at < text.size();) {
    const Ids::value_type* longest = nullptr;
    for (const auto& token : added_) {
      if (text.substr(at).starts_with(token.first) &&
          (longest == nullptr || token.first.size() > longest->first.size())) {
        longest = &token;
      }
    }
    if (longest == nullptr) {
      ++at;
      continue;
    }
    encode_text(text.substr(plain, at - plain), ids);
    ids.push_back(longest->second);
    at += longest->first.size();
    plain = at;
  }
  encode_text(text.substr(plain), ids);
  return ids;
}

std::string_view Tokenizer::bytes(int32_t id) const {
  return id >= 0 && id < size() ? std::string_view(tokens_[id]) : std::string_view();
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (const int32_t id : ids) {
    text += bytes(id);
  }
  return text;
}

std::optional<int32_t> Tokenizer::added(std::string_view content) const {
  const auto found = added_.find(content);
  return found == added_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace penstock::llama
