#include "worker/engines/llama/byte_pairs.h"

#include <functional>
#include <queue>
#include <tuple>

namespace penstock::llama {
namespace {

constexpr size_t kEnd = SIZE_MAX;

uint64_t key_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A part of the word, linked to its neighbours.
struct Part {
  int32_t token;  // -1: joined into its left neighbour
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

}  // namespace

// One word while its parts are being joined.
class BytePairs::Word {
 public:
  Word(const BytePairs& pairs, std::string_view bytes) : pairs_(pairs) {
    parts_.reserve(bytes.size());
    for (size_t i = 0; i < bytes.size(); ++i) {
      const int32_t token = pairs.bytes_[static_cast<uint8_t>(bytes[i])];
      parts_.push_back({token, i == 0 ? kEnd : i - 1, i + 1 < bytes.size() ? i + 1 : kEnd});
    }
    for (size_t i = 0; i < parts_.size(); ++i) {
      consider(i);
    }
  }

  void join_all() {
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      if (is_current(best)) {
        join(best);
      }
    }
  }

  void append_to(std::vector<int32_t>& tokens) const {
    for (size_t at = parts_.empty() ? kEnd : 0; at != kEnd; at = parts_[at].next) {
      tokens.push_back(parts_[at].token);
    }
  }

 private:
  // Notes the pair that begins at `at` if there is a merge for it.
  void consider(size_t at) {
    if (at == kEnd || parts_[at].next == kEnd) {
      return;
    }
    const int32_t left = parts_[at].token;
    const int32_t right = parts_[parts_[at].next].token;
    const auto found = pairs_.merges_.find(key_of(left, right));
    if (found != pairs_.merges_.end()) {
      candidates_.push({found->second.rank, at, left, right, found->second.joined});
    }
  }

  bool is_current(const Candidate& candidate) const {
    const Part& left = parts_[candidate.at];
    return left.token == candidate.left && left.next != kEnd &&
           parts_[left.next].token == candidate.right;
  }

  void join(const Candidate& candidate) {
    Part& left = parts_[candidate.at];
    Part& right = parts_[left.next];
    left.token = candidate.joined;
    left.next = right.next;
    right.token = -1;
    if (left.next != kEnd) {
      parts_[left.next].previous = candidate.at;
    }
    consider(left.previous);
    consider(candidate.at);
  }

  const BytePairs& pairs_;
  std::vector<Part> parts_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates_;
};

bool BytePairs::add_merge(int32_t left, int32_t right, int32_t joined) {
  const auto rank = static_cast<uint32_t>(merges_.size());
  return merges_.emplace(key_of(left, right), Merge{rank, joined}).second;
}

void BytePairs::join(std::string_view word, std::vector<int32_t>& tokens) const {
  Word parts(*this, word);
  parts.join_all();
  parts.append_to(tokens);
}

}  // namespace penstock::llama
