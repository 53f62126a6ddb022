// The added tokens of a tokenizer.json, found in text before it is cut into words: <|eot_id|>,
// <think> and their like.
//
// The rule of hands (text.h): a token is found only where one hand wrote all of it, and a control
// token ("special" in the file) only where that is the template's. A caller who writes <|eot_id|>
// has written letters; one who writes <think>, where that is no control token, means the token, as
// with Hugging Face's library. Nor can a caller spoil a token of the template's: what stands beside
// it in another hand is not looked at.
//
// The longest of the tokens that begin at a place is found. Tokens that are not "normalized" go
// first. "single_word": not beside a letter, digit or underscore. "lstrip", "rstrip": the token
// takes the white space before or after it.
//
// Source: Hugging Face tokenizers, AddedVocabulary.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "worker/engines/llama/text.h"

namespace penstock::llama {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
};

class AddedTokens {
 public:
  // The contents of all tokens together have at most so many bytes. add() is false beyond that.
  static constexpr size_t kMaxBytes = 4 << 20;
  bool add(AddedToken token);

  // [from, end) of a text: a token, or text that is none.
  struct Piece {
    static constexpr int32_t kText = -1;
    size_t from;
    size_t end;
    int32_t id;
  };
  // The whole text in order. O(bytes * the longest token).
  std::vector<Piece> find(const Text& text) const;

 private:
  // Contents letter by letter: a node and a byte lead to a node.
  struct Trie {
    Trie() { first.fill(0); }
    std::array<int32_t, 256> first;                   // from the root; 0: nowhere
    std::unordered_map<uint64_t, int32_t> next;       // by node << 8 | byte
    std::vector<const AddedToken*> ends = {nullptr};  // by node
    void add(const AddedToken& token);
    int32_t step(int32_t node, uint8_t byte) const;
    const AddedToken* longest(std::string_view text, Hand hand) const;
  };
  static void scan(const Trie& trie, const Text& text, const Piece& piece,
                   std::vector<Piece>& pieces);

  std::vector<std::unique_ptr<const AddedToken>> tokens_;
  Trie plain_;
  Trie normalized_;
  size_t bytes_ = 0;
};

}  // namespace penstock::llama
