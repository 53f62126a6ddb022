#include "worker/engines/llama/tokenizer.h"

namespace penstock::llama {

std::vector<int32_t> Tokenizer::encode(const Text& text) const {
  std::vector<int32_t> ids;
  for (const AddedTokens::Piece& piece : added_tokens_.find(text)) {
    if (piece.id == AddedTokens::Piece::kText) {
      encode_text(text.bytes().substr(piece.from, piece.end - piece.from), ids);
    } else {
      ids.push_back(piece.id);
    }
  }
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
