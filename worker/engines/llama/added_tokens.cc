#include "worker/engines/llama/added_tokens.h"

#include <algorithm>

#include "worker/engines/llama/unicode_class.h"

namespace penstock::llama {
namespace {

size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 &&
         (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) {
    --at;
  }
  return at;
}

bool is_word(std::string_view text, size_t at) {
  const Char c = char_at(text, at);
  return c.kind == CharClass::kLetter || c.kind == CharClass::kNumber || c.code == '_';
}

size_t space_before(std::string_view text) {
  const size_t size = text.size();
  while (!text.empty() && char_at(text, last_character(text)).kind == CharClass::kSpace) {
    text = text.substr(0, last_character(text));
  }
  return size - text.size();
}

size_t space_after(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && char_at(text, at).kind == CharClass::kSpace) {
    at += char_at(text, at).bytes;
  }
  return at;
}

bool stands_alone(std::string_view before, std::string_view after) {
  return (before.empty() || !is_word(before, last_character(before))) &&
         (after.empty() || !is_word(after, 0));
}

}  // namespace

void AddedTokens::Trie::add(const AddedToken& token) {
  int32_t node = 0;
  for (const char c : token.content) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t to = step(node, byte);
    if (to == 0) {
      to = static_cast<int32_t>(ends.size());
      ends.push_back(nullptr);
      (node == 0 ? first[byte] : next[static_cast<uint64_t>(node) << 8 | byte]) = to;
    }
    node = to;
  }
  ends[static_cast<size_t>(node)] = &token;
}

int32_t AddedTokens::Trie::step(int32_t node, uint8_t byte) const {
  if (node == 0) {
    return first[byte];
  }
  const auto found = next.find(static_cast<uint64_t>(node) << 8 | byte);
  return found == next.end() ? 0 : found->second;
}

const AddedToken* AddedTokens::Trie::longest(std::string_view text, Hand hand) const {
  const AddedToken* longest = nullptr;
  int32_t node = 0;
  for (const char c : text) {
    node = step(node, static_cast<uint8_t>(c));
    if (node == 0) {
      break;
    }
    const AddedToken* token = ends[static_cast<size_t>(node)];
    if (token != nullptr && (!token->special || hand == Hand::kTemplate)) {
      longest = token;
    }
  }
  return longest;
}

bool AddedTokens::add(AddedToken token) {
  bytes_ += token.content.size();
  if (bytes_ > kMaxBytes) {
    return false;
  }
  const AddedToken& kept =
      *tokens_.emplace_back(std::make_unique<const AddedToken>(std::move(token)));
  (kept.normalized ? normalized_ : plain_).add(kept);
  return true;
}

std::vector<AddedTokens::Piece> AddedTokens::find(const Text& text) const {
  std::vector<Piece> first;
  scan(plain_, text, {0, text.size(), Piece::kText}, first);
  std::vector<Piece> pieces;
  for (const Piece& piece : first) {
    if (piece.id == Piece::kText) {
      scan(normalized_, text, piece, pieces);
    } else {
      pieces.push_back(piece);
    }
  }
  return pieces;
}

void AddedTokens::scan(const Trie& trie, const Text& text, const Piece& piece,
                       std::vector<Piece>& pieces) {
  const std::string_view bytes = text.bytes();
  size_t done = piece.from;  // all before has its piece
  text.each_run([&](size_t from, size_t end, Hand hand) {
    from = std::max(from, piece.from);
    end = std::min(end, piece.end);
    for (size_t at = std::max(from, done); at < end;) {
      const AddedToken* token = trie.longest(bytes.substr(at, end - at), hand);
      const size_t size = token == nullptr ? 1 : token->content.size();
      const bool fits =
          token != nullptr &&
          (!token->single_word ||
           stands_alone(bytes.substr(from, at - from), bytes.substr(at + size, end - at - size)));
      if (!fits) {
        at += size;
        continue;
      }
      const size_t begin = at - (token->lstrip ? space_before(bytes.substr(done, at - done)) : 0);
      const size_t stop =
          at + size +
          (token->rstrip ? space_after(bytes.substr(at + size, piece.end - at - size)) : 0);
      if (begin > done) {
        pieces.push_back({done, begin, Piece::kText});
      }
      pieces.push_back({begin, stop, token->id});
      done = at = stop;
    }
  });
  if (done < piece.end) {
    pieces.push_back({done, piece.end, Piece::kText});
  }
}

}  // namespace penstock::llama
