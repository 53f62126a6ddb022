#include "worker/engines/llama/text.h"

#include <algorithm>

namespace penstock::llama {

void Text::append(std::string_view bytes, Hand hand) {
  if (bytes.empty()) {
    return;
  }
  bytes_ += bytes;
  if (runs_.empty() || runs_.back().hand != hand) {
    runs_.push_back({0, hand});
  }
  runs_.back().end = bytes_.size();
}

void Text::append_part(const Text& other, size_t from, size_t count) {
  const size_t end = from + count;
  for (size_t run = count == 0 ? other.runs_.size() : other.run_at(from); from < end; ++run) {
    const size_t until = std::min(other.runs_[run].end, end);
    append(std::string_view(other.bytes_).substr(from, until - from), other.runs_[run].hand);
    from = until;
  }
}

Text Text::part(size_t from, size_t count) const {
  Text result;
  result.append_part(*this, from, count);
  return result;
}

size_t Text::run_at(size_t at) const {
  const auto found = std::upper_bound(runs_.begin(), runs_.end(), at,
                                      [](size_t a, const Stretch& run) { return a < run.end; });
  return static_cast<size_t>(found - runs_.begin());
}

}  // namespace penstock::llama
