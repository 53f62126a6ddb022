// Byte pair encoding: joins the bytes of a word into tokens, the earliest learnt merge first.
//
// Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace penstock::llama {

class BytePairs {
 public:
  // The token of each single byte. REQUIRES: called for all 256 before join().
  void set_byte(uint8_t byte, int32_t token) { bytes_[byte] = token; }

  // Next in rank: left followed by right becomes `joined`. False if that pair has a rank already.
  bool add_merge(int32_t left, int32_t right, int32_t joined);

  // Appends the word's tokens. While any adjacent pair has a rank, the one of lowest rank, leftmost
  // among equals, is joined. O(n log n) in the word's bytes, however long it is.
  void join(std::string_view word, std::vector<int32_t>& tokens) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t joined;
  };

  class Word;

  std::array<int32_t, 256> bytes_ = {};
  std::unordered_map<uint64_t, Merge> merges_;  // by left << 32 | right
};

}  // namespace penstock::llama
