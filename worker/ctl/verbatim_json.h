// JSON kept as it was written: checked as a whole (RFC 8259), its members handed out as text.
//
// A parser that turns numbers into 64 bits calls valid JSON broken, or passes on another number
// than it was given. Here a number is its digits, and a string is its escapes until somebody wants
// its characters.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::ctl {

constexpr int kMaxJsonDepth = 1024;

// Whether all of `text` is one JSON value. An Error says what is wrong, and at which byte.
Status check_json(std::string_view text);

// The members of an object. Of several with one name the last counts.
class VerbatimObject {
 public:
  // All of `text`, which must outlive this, is one JSON object; an Error says what is wrong.
  static Result<VerbatimObject> read(std::string_view text);

  // A member's value as it stands; empty when there is none.
  std::string_view operator[](std::string_view name) const;
  // A member that is a string, its escapes undone; empty when it is none, or no Unicode text (half
  // of a surrogate pair).
  std::string text(std::string_view name) const;

 private:
  std::map<std::string, std::string_view, std::less<>> members_;
};

// Without the white space between its parts: on one line. REQUIRES: check_json(json).
std::string compact_json(std::string_view json);

}  // namespace penstock::ctl
