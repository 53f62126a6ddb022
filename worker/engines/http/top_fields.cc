#include "worker/engines/http/top_fields.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "shared/http/json_chars.h"

namespace penstock::http_engine {

using http::is_of_mark;
using http::is_space;

const TopField* TopFields::find(std::string_view name) const {
  const auto found = std::find_if(fields_.rbegin(), fields_.rend(),
                                  [&](const TopField& each) { return each.name == name; });
  return found == fields_.rend() ? nullptr : &*found;
}

bool TopFields::feed(std::string_view piece) {
  while (!piece.empty() && state_ != State::kEnd) {
    size_t taken = 1;
    if (in_string_) {
      taken = in_string(piece);
    } else {
      take(piece.front());
    }
    at_ += taken;
    piece.remove_prefix(taken);
  }
  return state_ == State::kEnd;
}

// Up to the quote that ends the string, or to the end of the piece. Most bytes are in strings.
size_t TopFields::in_string(std::string_view piece) {
  const void* const found = std::memchr(piece.data(), '"', piece.size());
  const size_t size =
      found == nullptr ? piece.size() : static_cast<const char*>(found) - piece.data();
  const size_t from = escaped_ && size > 0 ? 1 : 0;  // that byte is escaped, whatever it is
  size_t slashes = 0;
  while (size - slashes > from && piece[size - slashes - 1] == '\\') {
    ++slashes;
  }
  escaped_ = slashes % 2 == 1 || (escaped_ && size == 0);
  if (found == nullptr) {
    keep(piece);
    return size;
  }
  in_string_ = std::exchange(escaped_, false);
  keep(piece.substr(0, size + 1));
  return size + 1;
}

void TopFields::keep(std::string_view bytes) {
  std::string& kept = state_ == State::kName ? field_.name : field_.text;
  const size_t most = state_ == State::kName ? kMaxNameBytes : kMaxValueBytes;
  too_long_ = too_long_ || kept.size() + bytes.size() > most;
  if (!too_long_) {
    kept.append(bytes);
  }
  end_ = at_ + bytes.size();
}

void TopFields::take(char c) {
  switch (state_) {
    case State::kStart:
      if (c == '{') {
        state_ = State::kBetween;
      } else if (!is_space(c) && !is_of_mark(c, at_)) {
        state_ = State::kEnd;
      }
      return;
    case State::kBetween:
      if (c == '"') {
        field_ = {.begin = at_};
        too_long_ = false;
        in_string_ = true;
        state_ = State::kName;
      } else if (c == '}') {
        close();
      } else if (c != ',' && !is_space(c)) {
        state_ = State::kEnd;
      }
      return;
    case State::kName:
      if (c == ':') {
        begin_value();
      } else if (!is_space(c)) {
        state_ = State::kEnd;
      }
      return;
    case State::kValue:
      return in_value(c);
    case State::kEnd:
      return;
  }
}

// What was kept of the name ends with its quote.
void TopFields::begin_value() {
  if (too_long_) {
    field_.name.clear();
  } else {
    field_.name.pop_back();
  }
  too_long_ = false;
  begun_ = false;
  depth_ = 0;
  state_ = State::kValue;
}

void TopFields::in_value(char c) {
  if (!begun_) {
    if (is_space(c)) {
      return;
    }
    begun_ = true;
    field_.value = end_ = at_;
  }
  if (depth_ == 0 && (c == ',' || c == '}' || c == ']')) {
    return end_value(c);
  }
  in_string_ = c == '"';
  depth_ += c == '{' || c == '[' ? 1 : 0;
  depth_ -= c == '}' || c == ']' ? 1 : 0;
  if (!is_space(c) || depth_ > 0) {
    keep(std::string_view(&c, 1));
  }
}

void TopFields::end_value(char c) {
  field_.end = end_;
  if (too_long_) {
    field_.text.clear();
  }
  fields_.push_back(std::move(field_));
  state_ = State::kBetween;
  if (c == '}') {
    close();
  } else if (c == ']' || fields_.size() == kMaxFields) {
    state_ = State::kEnd;
  }
}

void TopFields::close() {
  closed_at_ = at_;
  state_ = State::kEnd;
}

}  // namespace penstock::http_engine
