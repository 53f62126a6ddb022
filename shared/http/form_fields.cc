#include "shared/http/form_fields.h"

#include <algorithm>

namespace penstock::http {
namespace {

bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// REQUIRES: b is in lower case.
bool same(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == y; });
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && is_blank(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && is_blank(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

// A value that is quoted or plain, taken off `rest`; into `out`, as much as there is room for.
// Returns its size, which may be larger.
size_t take_value(std::string_view& rest, std::span<char> out) noexcept {
  size_t size = 0;
  const auto put = [&](char c) noexcept {
    if (size < out.size()) {
      out[size] = c;
    }
    ++size;
  };
  size_t i = 0;
  if (rest.starts_with('"')) {
    for (i = 1; i < rest.size() && rest[i] != '"'; ++i) {
      i += rest[i] == '\\' && i + 1 < rest.size() ? 1 : 0;
      put(rest[i]);
    }
  } else {
    for (; i < rest.size() && rest[i] != ';' && !is_blank(rest[i]); ++i) {
      put(rest[i]);
    }
  }
  rest.remove_prefix(std::min(rest.find(';', i), rest.size()));
  return size;
}

// Calls visit(name, rest) for each parameter of "type; name=value; ..."; what is left of `rest`
// begins with its value, which visit may take off.
template <typename Visit>
void for_each_parameter(std::string_view text, const Visit& visit) noexcept {
  text.remove_prefix(std::min(text.find(';'), text.size()));
  while (!text.empty()) {
    text.remove_prefix(1);
    const size_t end = std::min(text.find_first_of("=;"), text.size());
    const std::string_view name = trimmed(text.substr(0, end));
    text.remove_prefix(end);
    if (!text.starts_with('=')) {
      continue;
    }
    text.remove_prefix(1);
    while (!text.empty() && is_blank(text.front())) {
      text.remove_prefix(1);
    }
    visit(name, text);
    if (!text.empty() && text.front() != ';') {
      take_value(text, {});
    }
  }
}

}  // namespace

bool FormFields::is_form(std::string_view content_type) noexcept {
  return same(trimmed(content_type.substr(0, content_type.find(';'))), "multipart/form-data");
}

FormFields::FormFields(std::span<const std::string_view> names,
                       std::string_view content_type) noexcept
    : names_(names.first(std::min(names.size(), kMaxFields))) {
  constexpr std::string_view kBefore = "\n--";
  kBefore.copy(delimiter_, kBefore.size());
  size_t size = 0;
  for_each_parameter(content_type, [&](std::string_view name, std::string_view& rest) noexcept {
    if (size == 0 && same(name, "boundary")) {
      size = take_value(rest, std::span(delimiter_).subspan(kBefore.size()));
    }
  });
  delimiter_size_ = kBefore.size() + size;
  if (size == 0 || size > kMaxBoundaryBytes) {
    delimiter_size_ = 0;
    state_ = State::kEnd;
  }
}

bool FormFields::feed(std::string_view piece) noexcept {
  for (size_t i = 0; i < piece.size() && state_ != State::kEnd;) {
    if (state_ == State::kContent) {
      i = content(piece, i);
    } else if (state_ == State::kDelimiter) {
      delimiter(piece[i++]);
    } else {
      header(piece[i++]);
      begin_ = fed_ + i;
    }
  }
  fed_ += piece.size();
  return state_ == State::kEnd;
}

BodyField FormFields::operator[](size_t i) const noexcept {
  if (i >= names_.size() || (settled_ >> i & 1) == 0) {
    return {};
  }
  return {.type = BodyField::Type::kString,
          .text = {texts_[i], found_[i].size},
          .bytes = found_[i].bytes,
          .digest = found_[i].digest};
}

// A run that begins no delimiter, or one more character of what may be one. Only its first is an
// LF, so what has gone wrong begins none anew before the character at hand.
size_t FormFields::content(std::string_view piece, size_t i) noexcept {
  if (matched_ == 0) {
    const size_t line = std::min(piece.find('\n', i), piece.size());
    add(piece.substr(i, line - i));
    matched_ = line < piece.size() ? 1 : 0;
    bare_ = false;
    return line + matched_;
  }
  if (piece[i] != delimiter_[matched_]) {
    add_matched();
    return i;
  }
  if (++matched_ == delimiter_size_) {
    state_ = State::kDelimiter;
    padding_size_ = dashes_ = 0;
  }
  return i + 1;
}

// A boundary that others begin with is not theirs: it is one when its line ends, or it has two more
// dashes, which end the form.
void FormFields::delimiter(char c) noexcept {
  if (c == '-' && padding_size_ == dashes_) {
    padding_[padding_size_++] = c;
    if (++dashes_ == 2) {
      end_part();
      state_ = State::kEnd;
    }
  } else if (c == '\n' && dashes_ == 0) {
    end_part();
    begin_part();
  } else if ((is_blank(c) || c == '\r') && dashes_ == 0 && padding_size_ < kMaxPaddingBytes) {
    padding_[padding_size_++] = c;
  } else {
    state_ = State::kContent;
    add_matched();
    add({padding_, padding_size_});
    matched_ = c == '\n' ? 1 : 0;
    add({&c, 1 - matched_});
  }
}

// It was no delimiter.
void FormFields::add_matched() noexcept {
  const size_t bare = bare_ ? 1 : 0;
  add({delimiter_ + bare, matched_ - bare});
  matched_ = 0;
  bare_ = false;
}

void FormFields::begin_part() noexcept {
  state_ = State::kHeader;
  header_size_ = 0;
  line_ended_ = disposed_ = is_file_ = false;
  field_ = kNone;
  bytes_ = 0;
  digest_ = {};
  kept_size_ = 0;
  last_ = '\0';
}

// A line that begins with white space goes on with the one before (RFC 5322, section 2.2.3).
void FormFields::header(char c) noexcept {
  if (line_ended_ && !is_blank(c)) {
    read_header();
    header_size_ = 0;
  }
  line_ended_ = false;
  if (c != '\n') {
    if (header_size_ < kMaxHeaderBytes) {
      header_[header_size_++] = c;
    }
    return;
  }
  header_size_ -= header_size_ > 0 && header_[header_size_ - 1] == '\r' ? 1 : 0;
  line_ended_ = header_size_ > 0;
  if (!line_ended_) {
    state_ = State::kContent;
    matched_ = 1;
    bare_ = true;
  }
}

void FormFields::read_header() noexcept {
  const std::string_view line(header_, header_size_);
  const size_t colon = std::min(line.find(':'), line.size());
  if (disposed_ || !same(trimmed(line.substr(0, colon)), "content-disposition")) {
    return;
  }
  disposed_ = true;
  char value[kMaxNameBytes];
  bool named = false;
  for_each_parameter(line.substr(colon),
                     [&](std::string_view name, std::string_view& rest) noexcept {
                       is_file_ = is_file_ || same(name, "filename") || same(name, "filename*");
                       if (!named && same(name, "name")) {
                         named = true;
                         const size_t size = take_value(rest, value);
                         field_ = size > sizeof value ? kNone : want({value, size});
                       }
                     });
}

// Of what comes before the first part, there is nothing to settle. The CR before the delimiter is
// its own.
void FormFields::end_part() noexcept {
  begun_ = true;
  files_ += is_file_ ? 1 : 0;
  is_file_ = false;
  if (field_ == kNone) {
    return;
  }
  const size_t cr = last_ == '\r' ? 1 : 0;
  bytes_ -= cr;
  Found& found = found_[field_];
  found.size = static_cast<uint8_t>(bytes_ <= kMaxValueBytes ? bytes_ : 0);
  found.bytes = bytes_;
  found.digest = digest_.end();
  found.begin = begin_;
  std::copy_n(kept_, found.size, texts_[field_]);
  settled_ |= uint32_t{1} << field_;
  field_ = kNone;
}

void FormFields::add(std::string_view text) noexcept {
  stray_ = stray_ || (!begun_ && text.find_first_not_of('\r') != text.npos);
  if (field_ == kNone || text.empty()) {
    return;
  }
  bytes_ += text.size();
  digest_.add(text);
  last_ = text.back();
  kept_size_ += text.copy(kept_ + kept_size_, sizeof kept_ - kept_size_);
}

// Who wants it. What it had before counts no more.
size_t FormFields::want(std::string_view name) noexcept {
  const auto at = std::find(names_.begin(), names_.end(), name);
  if (at == names_.end()) {
    return kNone;
  }
  const auto i = static_cast<size_t>(at - names_.begin());
  settled_ &= ~(uint32_t{1} << i);
  return i;
}

}  // namespace penstock::http
