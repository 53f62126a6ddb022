#include "worker/engines/llama/template/lexer.h"

#include <algorithm>

#include "worker/engines/llama/template/characters.h"

namespace penstock::llama::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

// Every line ends with \n; the last one's is not part of the template.
std::string with_plain_lines(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  if (text.ends_with('\n')) {
    text.pop_back();
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_lines(source)) {}

  Result<std::vector<Token>> run() {
    while (error_.empty() && at_ < source_.size()) {
      read_data();
    }
    add(Token::Kind::kEnd, "");
    if (!error_.empty()) {
      return Error{error_};
    }
    return std::move(tokens_);
  }

 private:
  using Kind = Token::Kind;

  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool next_is(std::string_view text) const { return rest().starts_with(text); }

  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void fail(const std::string& what) {
    if (error_.empty()) {
      error_ = "line " + std::to_string(line_) + ": " + what;
    }
    at_ = source_.size();
  }

  void go_to(size_t end) {
    end = std::min(end, source_.size());
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + end, '\n'));
    line_begins_ = end > at_ ? source_[end - 1] == '\n' : line_begins_;
    at_ = end;
  }

  void skip_space() { go_to(at_ + leading_space(rest())); }
  void skip_new_line() { go_to(at_ + (next_is("\n") ? 1 : 0)); }

  // Text up to the next tag, then the tag.
  void read_data() {
    size_t tag = source_.find('{', at_);
    while (tag != source_.npos &&
           (tag + 1 == source_.size() ||
            std::string_view("{%#").find(source_[tag + 1]) == std::string_view::npos)) {
      tag = source_.find('{', tag + 1);
    }
    if (tag == source_.npos) {
      add(Kind::kData, source_.substr(at_));
      go_to(source_.size());
      return;
    }
    add_data(tag);
    const char kind = source_[tag + 1];
    const bool sign =
        tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+');
    go_to(tag + (sign ? 3 : 2));
    if (kind == '#') {
      skip_comment();
    } else if (kind == '%' && !read_raw()) {
      read_tag(Kind::kBlock, Kind::kBlockEnd, "%}");
    } else if (kind == '{') {
      read_tag(Kind::kPrint, Kind::kPrintEnd, "}}");
    }
  }

  // What stands before the tag at `tag`, trimmed as the tag asks.
  void add_data(size_t tag) {
    std::string_view data = std::string_view(source_).substr(at_, tag - at_);
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (sign == '-') {
      data.remove_suffix(trailing_space(data));
    } else if (sign != '+' && source_[tag + 1] != '{') {
      const size_t new_line = data.rfind('\n');
      const size_t line = new_line == data.npos ? 0 : new_line + 1;
      const bool all_space = trailing_space(data.substr(line)) == data.size() - line;
      if ((line > 0 || line_begins_) && all_space) {
        data = data.substr(0, line);
      }
    }
    if (!data.empty()) {
      add(Kind::kData, std::string(data));
    }
  }

  void skip_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == source_.npos) {
      return fail("a comment is not closed by #}");
    }
    const char sign = end > at_ ? source_[end - 1] : ' ';
    go_to(end + 2);
    end_tag(sign);
  }

  // Of a block or comment that ended with `sign` before its last two characters.
  void end_tag(char sign) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+') {
      skip_new_line();
    }
  }

  // {% raw %} ... {% endraw %}, if that is what stands here.
  bool read_raw() {
    size_t at = at_ + leading_space(rest());
    if (source_.compare(at, 3, "raw") != 0) {
      return false;
    }
    at += 3;
    at += leading_space(std::string_view(source_).substr(at));
    const bool trims = source_.compare(at, 3, "-%}") == 0;
    if (!trims && source_.compare(at, 2, "%}") != 0) {
      return false;
    }
    go_to(at + (trims ? 3 : 2));
    if (trims) {
      skip_space();
    }
    for (size_t tag = source_.find("{%", at_); tag != source_.npos;
         tag = source_.find("{%", tag + 1)) {
      if (end_raw(tag)) {
        return true;
      }
    }
    fail("raw is not closed by endraw");
    return true;
  }

  bool end_raw(size_t tag) {
    size_t at = tag + 2;
    at += at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? 1 : 0;
    at += leading_space(std::string_view(source_).substr(std::min(at, source_.size())));
    if (at >= source_.size() || source_.compare(at, 6, "endraw") != 0) {
      return false;
    }
    at += 6;
    at += leading_space(std::string_view(source_).substr(at));
    const char sign = at < source_.size() ? source_[at] : ' ';
    at += sign == '-' || sign == '+' ? 1 : 0;
    if (source_.compare(std::min(at, source_.size()), 2, "%}") != 0) {
      return false;
    }
    add_data(tag);
    go_to(at + 2);
    end_tag(sign);
    return true;
  }

  void read_tag(Kind begin, Kind end, std::string_view closing) {
    add(begin, "");
    open_.clear();
    while (error_.empty()) {
      skip_space();
      if (at_ == source_.size()) {
        return fail("a tag is not closed by " + std::string(closing));
      }
      if (open_.empty() && at_end_of_tag(end, closing)) {
        return;
      }
      read_token();
    }
  }

  bool at_end_of_tag(Kind end, std::string_view closing) {
    const char sign = source_[at_];
    const bool signs = sign == '-' || (sign == '+' && end == Kind::kBlockEnd);
    if (source_.compare(at_ + (signs ? 1 : 0), 2, closing) != 0) {
      return false;
    }
    add(end, "");
    go_to(at_ + 2 + (signs ? 1 : 0));
    if (end == Kind::kBlockEnd) {
      end_tag(signs ? sign : ' ');
    } else if (signs) {
      skip_space();
    }
    return true;
  }

  void read_token() {
    const char c = source_[at_];
    if (is_digit(c)) {
      read_number();
    } else if (is_name(c)) {
      const size_t end =
          std::find_if_not(source_.begin() + at_, source_.end(), is_name) - source_.begin();
      add(Kind::kName, source_.substr(at_, end - at_));
      go_to(end);
    } else if (c == '\'' || c == '"') {
      read_string(c);
    } else {
      read_operator();
    }
  }

  size_t digits_from(size_t at) const {
    while (at < source_.size() && (is_digit(source_[at]) || source_[at] == '_')) {
      ++at;
    }
    return at;
  }

  void read_number() {
    size_t end = digits_from(at_);
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';  // x.0.1 is no float
    bool real = false;
    if (!after_dot && end + 1 < source_.size() && source_[end] == '.' &&
        is_digit(source_[end + 1])) {
      end = digits_from(end + 1);
      real = true;
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t power = end + 1;
      power += power < source_.size() && (source_[power] == '-' || source_[power] == '+') ? 1 : 0;
      if (power < source_.size() && is_digit(source_[power])) {
        end = digits_from(power);
        real = true;
      }
    }
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    add(real ? Kind::kFloat : Kind::kInteger, std::move(text));
    go_to(end);
  }

  void read_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) {
      end += source_[end] == '\\' ? 2 : 1;
    }
    if (end >= source_.size()) {
      return fail("a string is not closed");
    }
    add(Kind::kString, unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    go_to(end + 1);
  }

  void read_operator() {
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                               "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                               ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (next_is(op)) {
        balance(op);
        add(Kind::kOperator, std::string(op));
        return go_to(at_ + op.size());
      }
    }
    fail("there is no operator '" + std::string(1, source_[at_]) + "'");
  }

  // Between brackets "}}" and "%}" end no tag.
  void balance(std::string_view op) {
    constexpr std::string_view kOpen = "([{";
    constexpr std::string_view kClose = ")]}";
    if (op.size() == 1 && kOpen.find(op[0]) != kOpen.npos) {
      open_ += op[0];
    } else if (op.size() == 1 && kClose.find(op[0]) != kClose.npos) {
      if (open_.empty() || open_.back() != kOpen[kClose.find(op[0])]) {
        return fail("'" + std::string(op) + "' closes nothing");
      }
      open_.pop_back();
    }
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_begins_ = true;  // what was read last ended a line, or nothing was
  std::string open_;         // brackets of this tag
  std::vector<Token> tokens_;
  std::string error_;
};

}  // namespace

Result<std::vector<Token>> tokens_of(std::string_view source) { return Lexer(source).run(); }

}  // namespace penstock::llama::jinja
