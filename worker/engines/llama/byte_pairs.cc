#include "worker/engines/llama/byte_pairs.h"

#include <queue>
#include <tuple>

namespace penstock::llama {
namespace {

constexpr size_t kEnd = SIZE_MAX;

// A part of the word, linked to its neighbours; a part joined into its left neighbour is dead.
struct Part {
  int32_t token;  // -1: dead
  size_t previous;
  size_t next;
};

// A pair that could be joined when it was found; by the time it is taken its parts may have
// changed.
struct Candidate {
  uint32_t rank;
  size_t at;  // the left part
  int32_t left;
  int32_t right;
  int32_t joined;

  bool operator>(const Candidate& other) const {
    return std::tie(rank, at) > std::tie(other.rank, other.at);
  }
};

uint64_t key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

bool BytePairs::add_merge(int32_t left, int32_t right, int32_t joined) {
  const auto rank = static_cast<uint32_t>(merges_.size());
  return merges_.emplace(key_of(left, right), Merge{rank, joined}).second;
}

const BytePairs::Merge* BytePairs::find(int32_t left, int32_t right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairs::join(std::string_view word, std::vector<int32_t>& tokens) const {
  if (word.empty()) {
    return;
  }
  std::vector<Part> parts;
  parts.reserve(word.size());
  for (const char c : word) {
    const size_t i = parts.size();
    parts.push_back({bytes_[static_cast<uint8_t>(c)], i - 1, i + 1});
  }
  parts.front().previous = kEnd;
  parts.back().next = kEnd;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](size_t at) {
    if (at == kEnd || parts[at].next == kEnd) {
      return;
    }
    const int32_t left = parts[at].token;
    const int32_t right = parts[parts[at].next].token;
    if (const Merge* merge = find(left, right)) {
      candidates.push({merge->rank, at, left, right, merge->joined});
    }
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    consider(i);
  }
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Part& left = parts[best.at];
    if (left.token != best.left || left.next == kEnd || parts[left.next].token != best.right) {
      continue;
    }
    Part& right = parts[left.next];
    left.token = best.joined;
    left.next = right.next;
    right.token = -1;
    if (left.next != kEnd) {
      parts[left.next].previous = best.at;
    }
    consider(left.previous);
    consider(best.at);
  }
  for (size_t at = 0; at != kEnd; at = parts[at].next) {
    tokens.push_back(parts[at].token);
  }
}

}  // namespace penstock::llama
