// The caller's model, read from a JSON body without parsing the rest of it.
//
// The edge needs one string out of bodies that may be large and arrive in pieces, to key limits and to route; whoever
// runs the job obeys what was found here, so reading the first "model" of the top level is enough. The body is not
// judged: a malformed one simply yields no model, and the engine says what is wrong with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::http {

class ModelField {
 public:
  static constexpr size_t kMaxBytes = 128;  // a longer model name counts as none

  // Feeds the next piece of the body. True once nothing more can change the outcome.
  bool feed(std::string_view piece) noexcept;

  // The value, unescaped; empty when there is none (yet). Valid as long as this object.
  std::string_view value() const noexcept { return {value_, found_ ? size_ : 0}; }

 private:
  enum class State : uint8_t { kStart, kKeyOrEnd, kKey, kColon, kValue, kString, kModel, kSkip, kEnd };
  bool step(char c) noexcept;
  bool in_text(char c) noexcept;

  State state_ = State::kStart;
  bool found_ = false;
  bool key_matches_ = false;
  uint8_t escape_ = 0;     // 0: none; 1: after a backslash; 2..5: hex digits of \u still to come, plus one
  uint16_t unicode_ = 0;
  uint32_t depth_ = 0;     // of nested values being skipped
  bool in_string_ = false; // while skipping
  size_t size_ = 0;
  char value_[kMaxBytes];
};

}  // namespace penstock::http
