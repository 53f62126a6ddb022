// LineReader: lines out of what a program writes, cut anywhere.
//
// A line ends with LF or CR LF, and with nothing else: U+2028 may stand in a text, and the CR of a
// progress bar is part of its line. At most one line is kept. A line that begins with '{' is kept
// up to a bound. Of any other line (noise, for the log) only the beginning is kept. The rest is
// skipped to the line's end.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace penstock::process {

class LineReader {
 public:
  // So many bytes are kept of the beginning of a line that is too long.
  static constexpr size_t kBeginningBytes = 1024;

  struct Line {
    std::string_view text;  // without its end; valid during the call
    bool whole;             // false: `text` is its beginning
  };
  using OnLine = std::function<void(const Line&)>;

  // `most_bytes`: of a line that begins with '{'.
  explicit LineReader(size_t most_bytes) : most_bytes_(most_bytes) {}

  // Calls on_line for each line that ends in `bytes`.
  void feed(std::string_view bytes, const OnLine& on_line);
  // No more comes: what has begun is a line too.
  void finish(const OnLine& on_line);

 private:
  void hold(std::string_view bytes);
  void complete(const OnLine& on_line);

  const size_t most_bytes_;
  std::string held_;
  bool whole_ = true;
};

}  // namespace penstock::process
