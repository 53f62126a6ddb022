#include "shared/http/model_field.h"

#include <cstring>

namespace penstock::http {
namespace {

constexpr std::string_view kKey = "model";

bool is_space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

bool ModelField::feed(std::string_view piece) noexcept {
  for (size_t i = 0; i < piece.size() && state_ != State::kEnd; ++i) {
    if (state_ == State::kSkip && in_string_ && !escaped_) {
      // Most of a body is one long prompt: run over it.
      while (i < piece.size() && piece[i] != '"' && piece[i] != '\\') {
        ++i;
      }
      if (i == piece.size()) {
        break;
      }
    }
    step(piece[i]);
  }
  return state_ == State::kEnd;
}

void ModelField::step(char c) noexcept {
  switch (state_) {
    case State::kStart:
      if (!is_space(c)) {
        state_ = c == '{' ? State::kBeforeKey : State::kEnd;
      }
      break;
    case State::kBeforeKey:
      if (c == '"') {
        size_ = 0;
        overflow_ = false;
        state_ = State::kKey;
      } else if (!is_space(c)) {
        state_ = State::kEnd;  // an empty object, or not JSON
      }
      break;
    case State::kKey:
      if (text(c)) {
        state_ = State::kColon;
      }
      break;
    case State::kColon:
      if (!is_space(c)) {
        state_ = c == ':' ? State::kBeforeValue : State::kEnd;
      }
      break;
    case State::kBeforeValue:
      if (!is_space(c)) {
        begin_value(c);
      }
      break;
    case State::kModel:
      if (text(c)) {
        found_ = !overflow_;
        state_ = State::kEnd;
      }
      break;
    case State::kSkip:
      skip(c);
      break;
    case State::kEnd:
      break;
  }
}

void ModelField::begin_value(char c) noexcept {
  const bool is_model = !overflow_ && std::string_view(value_, size_) == kKey;
  size_ = 0;
  overflow_ = false;
  if (is_model) {
    state_ = c == '"' ? State::kModel : State::kEnd;  // a model that is not a string is none
    return;
  }
  state_ = State::kSkip;
  depth_ = 0;
  in_string_ = false;
  escaped_ = false;
  skip(c);
}

// Passes over one value of the top level, up to the comma or brace that ends it.
void ModelField::skip(char c) noexcept {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
    }
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (depth_ > 0) {
    depth_ -= c == '}' || c == ']' ? 1 : 0;
  } else if (c == ',') {
    state_ = State::kBeforeKey;
  } else if (c == '}' || c == ']') {
    state_ = State::kEnd;
  }
}

// One character of a string that is kept, escapes undone. True at the closing quote.
bool ModelField::text(char c) noexcept {
  if (hex_left_ > 0) {
    const int digit = hex_digit(c);
    if (digit < 0) {
      state_ = State::kEnd;
      return false;
    }
    unicode_ = static_cast<uint16_t>(unicode_ << 4 | digit);
    if (--hex_left_ == 0) {
      keep_code_unit();
    }
  } else if (escaped_) {
    escaped_ = false;
    static constexpr std::string_view kFrom = "\"\\/bfnrt";
    static constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    if (c == 'u') {
      hex_left_ = 4;
      unicode_ = 0;
    } else if (const size_t at = kFrom.find(c); at != std::string_view::npos) {
      keep(kTo[at]);
    } else {
      state_ = State::kEnd;
    }
  } else if (c == '\\') {
    escaped_ = true;
  } else if (c == '"') {
    return true;
  } else {
    keep(c);
  }
  return false;
}

// UTF-8 of one \uXXXX. Surrogates mark the string unusable: no model is named so.
void ModelField::keep_code_unit() noexcept {
  if (unicode_ < 0x80) {
    keep(static_cast<char>(unicode_));
  } else if (unicode_ < 0x800) {
    keep(static_cast<char>(0xC0 | unicode_ >> 6));
    keep(static_cast<char>(0x80 | (unicode_ & 0x3F)));
  } else if (unicode_ >= 0xD800 && unicode_ < 0xE000) {
    overflow_ = true;
  } else {
    keep(static_cast<char>(0xE0 | unicode_ >> 12));
    keep(static_cast<char>(0x80 | (unicode_ >> 6 & 0x3F)));
    keep(static_cast<char>(0x80 | (unicode_ & 0x3F)));
  }
}

void ModelField::keep(char c) noexcept {
  if (size_ < kMaxBytes) {
    value_[size_++] = c;
  } else {
    overflow_ = true;
  }
}

}  // namespace penstock::http
