#include "worker/engines/process/line_reader.h"

#include <algorithm>

namespace penstock::process {
namespace {

// One long line does not cost its memory for ever.
constexpr size_t kKeptBytes = 64U << 10;

}  // namespace

void LineReader::feed(std::string_view bytes, const OnLine& on_line) {
  for (size_t end = bytes.find('\n'); end != bytes.npos; end = bytes.find('\n')) {
    hold(bytes.substr(0, end));
    complete(on_line);
    bytes.remove_prefix(end + 1);
  }
  hold(bytes);
}

void LineReader::finish(const OnLine& on_line) {
  if (!held_.empty()) {
    complete(on_line);
  }
}

void LineReader::hold(std::string_view bytes) {
  if (!whole_ || bytes.empty()) {
    return;
  }
  const char first = held_.empty() ? bytes.front() : held_.front();
  const size_t most = first == '{' ? most_bytes_ : kBeginningBytes;
  if (bytes.size() <= most - held_.size()) {
    held_.append(bytes);
    return;
  }
  whole_ = false;
  std::string beginning = held_.substr(0, kBeginningBytes);
  beginning.append(bytes.substr(0, kBeginningBytes - beginning.size()));
  held_ = std::move(beginning);
}

void LineReader::complete(const OnLine& on_line) {
  std::string_view text = held_;
  if (whole_ && text.ends_with('\r')) {
    text.remove_suffix(1);
  }
  on_line({text, whole_});
  whole_ = true;
  held_.clear();
  if (held_.capacity() > kKeptBytes) {
    held_ = {};
  }
}

}  // namespace penstock::process
