#include "worker/queue/config/yaml_faults.h"

#include <algorithm>
#include <vector>

namespace penstock::queue {
namespace {

struct Bracket {
  char open = 0;
  int line = 0;
};

// The line of that number, from 1; empty: there is none.
std::string_view line_at(std::string_view text, int number) {
  for (int line = 1; line < number && !text.empty(); ++line) {
    text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  }
  return number < 1 ? std::string_view() : text.substr(0, text.find('\n'));
}

bool tab_indents(std::string_view line) {
  return line.substr(0, line.find_first_not_of(" \t")).find('\t') != std::string_view::npos;
}

// Follows brackets that begin a value: in the middle of plain text they are text.
class Brackets {
 public:
  void read(std::string_view line, int number) {
    char before = ' ';  // of what is no space
    bool spaced = true;
    for (const char c : line) {
      if (quote_ != 0) {
        quote_ = c == quote_ ? '\0' : quote_;
      } else if (c == '#' && spaced) {
        return;
      } else if ((c == '"' || c == '\'') && begins(before, spaced)) {
        quote_ = c;
      } else if ((c == '{' || c == '[') && begins(before, spaced)) {
        open_.push_back({c, number});
      } else if ((c == '}' || c == ']') && !open_.empty()) {
        open_.pop_back();
      }
      spaced = c == ' ' || c == '\t';
      before = spaced ? before : c;
    }
  }
  const Bracket* innermost() const { return open_.empty() ? nullptr : &open_.back(); }

 private:
  // `before` is ' ' at a line's begin.
  bool begins(char before, bool spaced) const {
    return before == ' ' || before == ',' || before == '{' || before == '[' ||
           (spaced && (before == ':' || before == '-' || before == '?'));
  }

  std::vector<Bracket> open_;
  char quote_ = 0;
};

}  // namespace

YamlFault explain(std::string_view text, YamlFault fault) {
  for (const int line : {fault.line, fault.line - 1, fault.line + 1}) {
    if (tab_indents(line_at(text, line))) {
      return {line, "a tab is in front of this line, and YAML indents by spaces alone"};
    }
  }
  Brackets brackets;
  for (int line = 1; line < fault.line && !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    brackets.read(text.substr(0, end), line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (const Bracket* const open = brackets.innermost(); open != nullptr) {
    fault.what += std::string("; the '") + open->open + "' of line " + std::to_string(open->line) +
                  " is not closed before here";
  }
  return fault;
}

}  // namespace penstock::queue
