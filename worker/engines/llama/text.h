// Text that knows whose hand wrote each byte of it: the model's own files (a chat template) or a
// caller. Cutting and joining keep that, so it is still known of a prompt that a template has put
// together from both; only the template's hand may write control tokens (tokenizer.h).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::llama {

enum class Hand : bool { kTemplate, kCaller };

class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, Hand hand) { append(bytes, hand); }

  std::string_view bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void append(std::string_view bytes, Hand hand);
  void append(const Text& other) { append_part(other, 0, other.size()); }
  void append_part(const Text& other, size_t from, size_t count);
  Text part(size_t from, size_t count) const;

  // Who wrote the byte at `at`. O(log runs). REQUIRES: at < size().
  Hand hand_at(size_t at) const { return runs_[run_at(at)].hand; }

  // Calls run(from, end, hand) for each stretch of one hand, in order.
  template <typename Run>
  void each_run(Run&& run) const {
    size_t from = 0;
    for (const auto& each : runs_) {
      run(from, each.end, each.hand);
      from = each.end;
    }
  }

 private:
  struct Stretch {
    size_t end;
    Hand hand;
  };
  size_t run_at(size_t at) const;

  std::string bytes_;
  std::vector<Stretch> runs_;  // no two neighbours of one hand; the last ends at size()
};

}  // namespace penstock::llama
