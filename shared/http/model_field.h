// The caller's model, read from a JSON body without parsing the rest of it.
//
// The edge needs one string out of bodies that may be large and arrive in pieces, to key limits and
// to route; whoever runs the job obeys what was found here, so reading the first "model" of the top
// level is enough. The body is not judged: a malformed one simply yields no model, and the engine
// says what is wrong with it.
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
  enum class State : uint8_t {
    kStart,
    kBeforeKey,
    kKey,
    kColon,
    kBeforeValue,
    kModel,
    kSkip,
    kEnd
  };
  void step(char c) noexcept;
  void begin_value(char c) noexcept;
  void skip(char c) noexcept;
  bool text(char c) noexcept;
  void keep_code_unit() noexcept;
  void keep(char c) noexcept;

  State state_ = State::kStart;
  bool found_ = false;
  bool overflow_ = false;   // the string kept is longer than kMaxBytes, or not text
  bool escaped_ = false;    // after a backslash
  bool in_string_ = false;  // while skipping
  uint8_t hex_left_ = 0;    // digits of \uXXXX still to come
  uint16_t unicode_ = 0;
  size_t depth_ = 0;  // of nested values being skipped
  size_t size_ = 0;
  char value_[kMaxBytes];  // the key, then the value
};

}  // namespace penstock::http
