#include "worker/engines/http/event_splitter.h"

namespace penstock::http_engine {
namespace {

constexpr std::string_view kBom = "\xEF\xBB\xBF";

// Where their first line ends; npos: not here.
size_t line_end(std::string_view bytes, EventSplitter::Format format) {
  const size_t feed = bytes.find('\n');
  const size_t cr =
      format == EventSplitter::Format::kEvents ? bytes.substr(0, feed).find('\r') : bytes.npos;
  return cr == bytes.npos ? feed : cr;
}

}  // namespace

bool EventSplitter::feed(std::string_view bytes) {
  while (!bytes.empty() && !over_) {
    if (after_cr_ && bytes.front() == '\n') {
      held_ += '\n';
      line_from_ = held_.size();
      bytes.remove_prefix(1);
    }
    after_cr_ = false;
    const size_t end = line_end(bytes, format_);
    const size_t size = end == bytes.npos ? bytes.size() : end;
    line_empty_ = line_empty_ && size == 0;
    held_.append(bytes.substr(0, size));
    if (end == bytes.npos) {
      return held_.size() <= kMaxHeldBytes || tell_part();
    }
    const bool blank = line_empty_;
    if (!blank) {
      end_line();
    }
    held_ += bytes[end];
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    line_from_ = held_.size();
    line_empty_ = true;
    line_long_ = false;
    if (blank || format_ == Format::kLines) {
      tell();
    } else if (held_.size() > kMaxHeldBytes) {
      tell_part();
    }
  }
  return !over_;
}

bool EventSplitter::end() {
  if (!line_empty_) {
    end_line();
  }
  return over_ || held_.empty() ? !over_ : tell();
}

// The line's beginning is at line_from_, its end is the end of what is held.
void EventSplitter::end_line() {
  std::string_view line = std::string_view(held_).substr(line_from_);
  if (first_line_ && line.starts_with(kBom)) {
    line.remove_prefix(kBom.size());
  }
  first_line_ = false;
  if (line_long_ || passing_) {
    return;
  }
  if (format_ == Format::kEvents) {
    return take_field(line);
  }
  if (line.find_first_not_of(" \t\r") != line.npos) {
    has_data_ = true;
    data_ = line;
  }
}

void EventSplitter::take_field(std::string_view line) {
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  std::string_view value = colon == line.npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) {
    value.remove_prefix(1);
  }
  if (name == "data") {
    data_.append(has_data_ ? "\n" : "").append(value);
    has_data_ = true;
  } else if (name == "error" && !has_data_) {
    data_ = value;
    has_data_ = is_error_ = true;
  } else if (name == "event") {
    type_ = value;
  }
}

bool EventSplitter::tell() {
  const bool whole = !passing_;
  const bool more = listener_.on_event({.bytes = held_,
                                        .data = whole ? std::string_view(data_) : "",
                                        .type = whole ? std::string_view(type_) : "",
                                        .is_error = is_error_,
                                        .has_data = has_data_ || !whole,
                                        .whole = whole});
  over_ = over_ || !more;
  held_.clear();
  data_.clear();
  type_.clear();
  line_from_ = 0;
  has_data_ = is_error_ = passing_ = false;
  return !over_;
}

bool EventSplitter::tell_part() {
  passing_ = true;
  line_long_ = line_long_ || !line_empty_;
  over_ = over_ || !listener_.on_event({.bytes = held_, .has_data = true, .whole = false});
  held_.clear();
  line_from_ = 0;
  data_.clear();
  return !over_;
}

}  // namespace penstock::http_engine
