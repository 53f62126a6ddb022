#include "shared/http/body_fields.h"

#include <algorithm>

#include "shared/base/hex.h"
#include "shared/http/json_chars.h"
#include "shared/http/json_number.h"

namespace penstock::http {
namespace {

using Type = BodyField::Type;

// The members of a message that are no text: what OpenAI's API and its kind call them.
bool is_media(std::string_view name) noexcept {
  static constexpr std::string_view kNames[] = {"image_url", "input_audio", "audio_url",
                                                "video_url", "file_data"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

// In lower case, as far as case goes for ASCII: Unicode knows two more letters of the kind, the
// long s and the sign of Kelvin. `out` has room for kMaxNameBytes.
std::string_view fold(std::string_view name, char* out) noexcept {
  constexpr std::string_view kLongS = "\xC5\xBF";
  constexpr std::string_view kKelvin = "\xE2\x84\xAA";
  size_t size = 0;
  for (name = name.substr(0, BodyFields::kMaxNameBytes); !name.empty(); ++size) {
    const bool s = name.starts_with(kLongS);
    const bool k = name.starts_with(kKelvin);
    const char c = name.front();
    out[size] = s ? 's' : k ? 'k' : c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    name.remove_prefix(s ? kLongS.size() : k ? kKelvin.size() : 1);
  }
  return {out, size};
}

Type type_of_scalar(std::string_view text) noexcept {
  if (text == "true" || text == "false") {
    return Type::kBoolean;
  }
  if (text == "null") {
    return Type::kNull;
  }
  return is_json_number(text) ? Type::kNumber : Type::kMissing;
}

}  // namespace

BodyFields::BodyFields(std::span<const std::string_view> names) noexcept
    : names_(names.first(std::min(names.size(), kMaxFields))),
      state_(names_.empty() ? State::kEnd : State::kStart) {
  for (const std::string_view name : names_) {
    char lower[kMaxNameBytes];
    known_ |= bit_of(fold(name, lower));
  }
}

bool BodyFields::feed(std::string_view piece) noexcept {
  size_t i = 0;
  piece_ = piece;
  while (i < piece.size() && state_ != State::kEnd) {
    i = advance(piece, i);
  }
  if (field_ != kNone) {
    digest_.add(piece.substr(piece_from_));
  }
  piece_ = {};
  piece_from_ = 0;
  before_ += piece.size();
  return state_ == State::kEnd;
}

BodyField BodyFields::operator[](size_t i) const noexcept {
  if (i >= names_.size() || (settled_ >> i & 1) == 0 || found_[i].type == Type::kMissing) {
    return {};
  }
  const Found& found = found_[i];
  return {found.type,  {texts_[i], found.size}, found.bytes, found.digest,
          found.media, found.media_bytes};
}

// Takes one character, or a whole run of those passed over. Returns where the next step begins:
// i itself when only the state changed.
size_t BodyFields::advance(std::string_view piece, size_t i) noexcept {
  const char c = piece[i];
  switch (state_) {
    case State::kStart:
      if (!is_space(c) && !is_of_mark(c, before_ + i)) {
        state_ = c == '{' ? State::kBeforeKey : State::kEnd;
      }
      break;
    case State::kBeforeKey:
      if (c == '"') {
        begin_text(kMaxNameBytes);
        state_ = State::kKey;
      } else if (!is_space(c)) {
        state_ = State::kEnd;  // an empty object, or not JSON
      }
      break;
    case State::kKey:
      return key(piece, i);
    case State::kColon:
      if (!is_space(c)) {
        state_ = c == ':' ? State::kBeforeValue : State::kEnd;
      }
      break;
    case State::kBeforeValue:
      return is_space(c) ? i + 1 : begin_value(c, i);
    case State::kString:
      return string(piece, i);
    case State::kScalar:
      return scalar(c, i);
    case State::kPass:
      return pass(piece, i);
    case State::kEnd:
      break;
  }
  return i + 1;
}

size_t BodyFields::key(std::string_view piece, size_t i) noexcept {
  const Text read = text(piece, i);
  if (read != Text::kMore) {
    state_ = read == Text::kClosed ? State::kColon : State::kEnd;
  }
  return i;
}

size_t BodyFields::begin_value(char c, size_t i) noexcept {
  field_ = wanted();
  begin_ = before_ + i;
  spaces_ = 0;
  digest_ = {};
  piece_from_ = i;
  media_ = Media::kNone;
  media_count_ = media_bytes_ = 0;
  begin_text(kMaxValueBytes);
  if (field_ != kNone) {
    settled_ &= ~(uint32_t{1} << field_);  // what came of the same name before does not count
  }
  if (field_ == kNone || c == '{' || c == '[') {
    type_ = c == '{' ? Type::kObject : Type::kArray;
    state_ = State::kPass;
    return i;
  }
  if (c == '"') {
    type_ = Type::kString;
    state_ = State::kString;
    return i + 1;
  }
  state_ = State::kScalar;
  return i;
}

// Part of a wanted string. Once it cannot be kept, it is passed over like any other, only for its
// length.
size_t BodyFields::string(std::string_view piece, size_t i) noexcept {
  const Text read = text(piece, i);
  if (read == Text::kClosed) {
    state_ = State::kPass;
    settle(Type::kString, kept(), i);
  } else if (read == Text::kBroken || unusable_) {
    state_ = State::kPass;
    in_string_ = true;
  }
  return i;
}

// One character of a wanted number, true, false or null; what they are is judged at their end.
size_t BodyFields::scalar(char c, size_t i) noexcept {
  if (!ends_scalar(c)) {
    keep(c);
    return i + 1;
  }
  state_ = State::kPass;
  const bool long_number = unusable_ && (kept_[0] == '-' || is_digit(kept_[0]));
  const Type type = long_number ? Type::kNumber : type_of_scalar(kept());
  settle(type, kept(), i);
  return i;
}

size_t BodyFields::pass(std::string_view piece, size_t i) noexcept {
  if (in_string_) {
    return pass_string(piece, i);
  }
  return depth_ > 0 ? pass_nested(piece, i) : pass_top(piece, i);
}

size_t BodyFields::pass_top(std::string_view piece, size_t i) noexcept {
  while ((kMeans[static_cast<uint8_t>(piece[i])] & kStopsTop) == 0) {
    if (++i == piece.size()) {
      return i;
    }
  }
  switch (piece[i]) {
    case '"':
      in_string_ = true;
      break;
    case '{':
    case '[':
      ++depth_;
      break;
    case ',':
      state_ = State::kBeforeKey;
      break;
    default:
      state_ = State::kEnd;
  }
  return i + 1;
}

// Up to the next string, or the bracket that closes the outermost, or the picture that it is in.
size_t BodyFields::pass_nested(std::string_view piece, size_t i) noexcept {
  if (media_ == Media::kName || media_ == Media::kValue) {
    return before_media(piece[i], i);
  }
  const size_t around = media_ == Media::kInside ? media_depth_ : 0;
  size_t depth = depth_;
  uint64_t spaces = 0;
  while (i < piece.size() && depth > around && !in_string_) {
    const uint8_t met = kMeans[static_cast<uint8_t>(piece[i++])];
    spaces += met >> kSpaceBit & 1;
    depth += met >> kOpensBit & 1;
    depth -= met >> kClosesBit & 1;
    in_string_ = (met & kQuote) != 0;
  }
  depth_ = depth;
  spaces_ += spaces;
  if (in_string_) {
    word_size_ = 0;
  } else if (depth == around) {
    media_ == Media::kInside ? end_media(i) : pass_closed(i);
  }
  return i;
}

// One character between the name of a picture or a sound and the value. What has none is passed
// over like any other.
size_t BodyFields::before_media(char c, size_t i) noexcept {
  if (is_space(c)) {
    ++spaces_;
    return i + 1;
  }
  if (media_ == Media::kName) {
    media_ = c == ':' ? Media::kValue : Media::kNone;
    return c == ':' ? i + 1 : i;
  }
  if (c != '"' && c != '{' && c != '[') {
    media_ = Media::kNone;
    return i;
  }
  media_ = Media::kInside;
  media_depth_ = depth_;
  media_begin_ = before_ + i;
  media_spaces_ = spaces_;
  in_string_ = c == '"';
  depth_ += in_string_ ? 0 : 1;
  return i + 1;
}

// It ended just before i.
void BodyFields::end_media(size_t i) noexcept {
  ++media_count_;
  media_bytes_ += before_ + i - media_begin_ - (spaces_ - media_spaces_);
  media_ = Media::kNone;
}

size_t BodyFields::pass_string(std::string_view piece, size_t i) noexcept {
  const size_t quote = find_quote(piece, i);
  if (seeks_media()) {
    word_size_ += piece.substr(i, quote - i).copy(word_ + word_size_, kMaxWordBytes - word_size_);
  }
  if (quote == piece.size()) {
    return quote;
  }
  in_string_ = false;
  if (media_ == Media::kInside && depth_ == media_depth_) {
    end_media(quote + 1);
  } else if (seeks_media()) {
    media_ = is_media({word_, word_size_}) ? Media::kName : Media::kNone;
  } else {
    pass_closed(quote + 1);
  }
  return quote + 1;
}

// The next that is not escaped, or the piece's end. Most of a body is one long prompt or image:
// memchr runs over it, once for the quote and once for the backslashes before it.
size_t BodyFields::find_quote(std::string_view piece, size_t i) noexcept {
  i += escaped_ ? 1 : 0;
  escaped_ = false;
  size_t quote = std::min(piece.find('"', i), piece.size());
  for (;;) {
    const size_t backslash = piece.substr(0, quote).find('\\', i);
    if (backslash == std::string_view::npos) {
      break;
    }
    i = backslash + 2;
    while (i < piece.size() && piece[i] == '\\') {
      i += 2;
    }
    if (i > piece.size()) {
      escaped_ = true;
      return piece.size();
    }
    if (i > quote) {  // it was that quote which is escaped
      quote = std::min(piece.find('"', i), piece.size());
    }
  }
  return quote;
}

// A string or bracket was closed just before i: if it was the outermost, that was the value.
void BodyFields::pass_closed(size_t i) noexcept {
  if (depth_ == 0 && field_ != kNone) {
    settle(type_, {}, i);
  }
}

void BodyFields::begin_text(size_t limit) noexcept {
  escaped_ = false;
  unusable_ = false;
  hex_left_ = 0;
  size_ = 0;
  limit_ = limit;
}

// Keeps a run of plain characters (no longer than it takes to see that it is too long) or one of an
// escape, undone, and moves i behind it. What breaks an escape is not taken: it may be the closing
// quote.
BodyFields::Text BodyFields::text(std::string_view piece, size_t& i) noexcept {
  if (escaped_ || hex_left_ > 0) {
    if (!escape(piece[i])) {
      return Text::kBroken;
    }
    ++i;
    return Text::kMore;
  }
  const size_t end = std::min(piece.size(), i + limit_ + 1);
  size_t plain = i;
  while (plain < end && piece[plain] != '"' && piece[plain] != '\\') {
    ++plain;
  }
  const size_t taken = piece.substr(i, plain - i).copy(kept_ + size_, limit_ - size_);
  size_ += taken;
  unusable_ = unusable_ || taken < plain - i;
  i = plain;
  if (i == end) {
    return Text::kMore;
  }
  escaped_ = piece[i++] == '\\';
  return escaped_ ? Text::kMore : Text::kClosed;
}

// One character after a backslash. False when there is no such escape: escaped_ then still says
// whether the backslash came just before.
bool BodyFields::escape(char c) noexcept {
  static constexpr std::string_view kFrom = "\"\\/bfnrt";
  static constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
  if (hex_left_ > 0) {
    const int digit = hex_digit(c);
    if (digit < 0) {
      return false;
    }
    unicode_ = static_cast<uint16_t>(unicode_ << 4 | digit);
    if (--hex_left_ == 0) {
      keep_code_unit();
    }
    return true;
  }
  if (c == 'u') {
    hex_left_ = 4;
    unicode_ = 0;
  } else if (const size_t at = kFrom.find(c); at != std::string_view::npos) {
    keep(kTo[at]);
  } else {
    return false;
  }
  escaped_ = false;
  return true;
}

// UTF-8 of one \uXXXX. Surrogates mark the string unusable: no name or number has them.
void BodyFields::keep_code_unit() noexcept {
  if (unicode_ < 0x80) {
    keep(static_cast<char>(unicode_));
  } else if (unicode_ < 0x800) {
    keep(static_cast<char>(0xC0 | unicode_ >> 6));
    keep(static_cast<char>(0x80 | (unicode_ & 0x3F)));
  } else if (unicode_ >= 0xD800 && unicode_ < 0xE000) {
    unusable_ = true;
  } else {
    keep(static_cast<char>(0xE0 | unicode_ >> 12));
    keep(static_cast<char>(0x80 | (unicode_ >> 6 & 0x3F)));
    keep(static_cast<char>(0x80 | (unicode_ & 0x3F)));
  }
}

void BodyFields::keep(char c) noexcept {
  if (size_ < limit_) {
    kept_[size_++] = c;
  } else {
    unusable_ = true;
  }
}

// Who wants the value of the key that was kept.
size_t BodyFields::wanted() noexcept {
  char lower[kMaxNameBytes];
  const std::string_view folded = fold(kept(), lower);
  if (unusable_ || (known_ & bit_of(folded)) == 0) {
    return kNone;
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == kept()) {
      return i;
    }
  }
  for (const std::string_view name : names_) {
    char bytes[kMaxNameBytes];
    alike_ = fold(name, bytes) == folded ? name : alike_;
  }
  return kNone;
}

// What most names that are not looked for differ in.
uint64_t BodyFields::bit_of(std::string_view name) noexcept {
  const size_t first = name.empty() ? 0 : static_cast<uint8_t>(name.front());
  return uint64_t{1} << (first + 7 * name.size()) % 64;
}

// Of the wanted value, which ended just before i.
void BodyFields::settle(Type type, std::string_view text, size_t i) noexcept {
  digest_.add(piece_.substr(piece_from_, i - piece_from_));
  found_[field_] = {type,
                    static_cast<uint8_t>(text.size()),
                    before_ + i - begin_ - spaces_,
                    digest_.end(),
                    media_count_,
                    media_bytes_};
  text.copy(texts_[field_], text.size());
  settled_ |= uint32_t{1} << field_;
  field_ = kNone;
}

}  // namespace penstock::http
