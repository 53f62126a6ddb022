// Answer: what a job has answered so far, kept for whoever asks later.
//
// The last kWindowBytes at least are in memory, so that an event stream can be resumed and a caller
// may join late; what will be too large for the database goes on to the store as it comes. For each
// piece: append(), give unstored() to the store, tell whoever listens, and only then trim().
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::queue {

// error.code of CONTRACT, section 4, for what an engine answered with status 400 or above.
constexpr std::string_view code_of_answer(uint64_t status) noexcept {
  constexpr uint64_t kNotFound = 404;
  constexpr uint64_t kFirstServerError = 500;
  return status == kNotFound           ? "not_found"
         : status >= kFirstServerError ? "engine_failed"
                                       : "invalid_request";
}

struct Answer {
  static constexpr size_t kWindowBytes = 256U << 10;

  uint16_t status = 0;  // 0: no head has come
  std::string content_type;
  std::string headers;  // besides: "Name: value\n" each
  uint64_t bytes = 0;   // so far, in all
  uint64_t stored = 0;  // of these, given to the store
  std::string tail;     // the last of them

  bool begun() const noexcept { return status != 0; }
  bool whole() const noexcept { return tail.size() == bytes; }
  // What is there from `offset` on, or from the first that is still there.
  std::string_view from(uint64_t offset) const noexcept {
    const uint64_t first = bytes - tail.size();
    return std::string_view(tail).substr(offset > first ? std::min(offset, bytes) - first : 0);
  }
  // What the store has not been given.
  std::string_view unstored() const noexcept {
    assert(bytes - stored <= tail.size());  // trim() leaves it
    return from(stored);
  }
  void append(std::string_view more) {
    bytes += more.size();
    tail.append(more);
  }
  // Forgets what lies before the window, once that is as much again. Of an answer that is stored
  // (`keep_unstored`), nothing that the store has not been given.
  void trim(bool keep_unstored) {
    if (tail.size() <= 2 * kWindowBytes) {
      return;
    }
    const uint64_t first = bytes - tail.size();
    const uint64_t until =
        keep_unstored ? std::min(stored, bytes - kWindowBytes) : bytes - kWindowBytes;
    tail.erase(0, until > first ? until - first : 0);
  }
  // Events show it piece by piece: it is text, and nobody wants a picture that way.
  bool is_text() const noexcept {
    return content_type.starts_with("text/") || content_type.starts_with("application/json") ||
           content_type.starts_with("application/x-ndjson");
  }
};

}  // namespace penstock::queue
