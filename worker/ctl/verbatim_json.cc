#include "worker/ctl/verbatim_json.h"

#include <cstdint>
#include <functional>
#include <optional>

#include "shared/base/utf8.h"

namespace penstock::ctl {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
int hex_value(char c) {
  return is_digit(c)            ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// Walks over one value after the other, and remembers what stopped it.
class Scanner {
 public:
  // Told of each member of the outermost object, both as they stand.
  using OnMember = std::function<void(std::string_view name, std::string_view value)>;

  explicit Scanner(std::string_view text) : text_(text) {}

  Status all(const OnMember& on_member) {
    const size_t bad = utf8_first_invalid(text_);
    if (bad != text_.npos) {
      at_ = bad;
      wrong("bytes that are not UTF-8");
    } else {
      skip_space();
      if (value(0, on_member ? &on_member : nullptr) && at_ < text_.size()) {
        wrong("something behind its end");
      }
    }
    return wrong_ == nullptr ? Status(Ok{})
                             : Error{std::string(wrong_) + " at byte " + std::to_string(at_)};
  }

 private:
  bool wrong(const char* what) {
    wrong_ = what;
    return false;
  }
  char here() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    const bool there = at_ < text_.size() && text_[at_] == c;
    at_ += there ? 1 : 0;
    return there;
  }
  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) {
      ++at_;
    }
  }

  // A value, and the white space behind it.
  bool value(int depth, const OnMember* on_member) {
    if (depth > kMaxJsonDepth) {
      return wrong("values nested too deeply");
    }
    const char first = here();
    const bool good = first == '{'                      ? object(depth, on_member)
                      : first == '['                    ? array(depth)
                      : first == '"'                    ? string()
                      : first == '-' || is_digit(first) ? number()
                                                        : word();
    skip_space();
    return good;
  }

  bool object(int depth, const OnMember* on_member) {
    ++at_;
    skip_space();
    if (take('}')) {
      return true;
    }
    do {
      skip_space();
      const size_t name = at_;
      if (here() != '"') {
        return wrong("no name in quotes where a member should begin");
      }
      if (!string()) {
        return false;
      }
      const std::string_view named = text_.substr(name, at_ - name);
      skip_space();
      if (!take(':')) {
        return wrong("no colon behind a member's name");
      }
      skip_space();
      const size_t begin = at_;
      if (!value(depth + 1, nullptr)) {
        return false;
      }
      if (on_member != nullptr) {
        std::string_view held = text_.substr(begin, at_ - begin);
        while (is_space(held.back())) {
          held.remove_suffix(1);
        }
        (*on_member)(named, held);
      }
    } while (take(','));
    return take('}') || wrong("no comma or closing brace behind a member");
  }

  bool array(int depth) {
    ++at_;
    skip_space();
    if (take(']')) {
      return true;
    }
    do {
      skip_space();
      if (!value(depth + 1, nullptr)) {
        return false;
      }
    } while (take(','));
    return take(']') || wrong("no comma or closing bracket behind an element");
  }

  bool string() {
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (static_cast<uint8_t>(text_[at_]) < 0x20) {
        return wrong("a control character inside a string");
      }
      if (text_[at_++] == '\\' && !escape()) {
        return wrong("a bad escape");
      }
    }
    return take('"') || wrong("a string without its closing quote");
  }
  bool escape() {
    constexpr std::string_view kSimple = "\"\\/bfnrt";
    if (take('u')) {
      for (int i = 0; i < 4; ++i, ++at_) {
        if (hex_value(here()) < 0) {
          return false;
        }
      }
      return true;
    }
    const bool good = at_ < text_.size() && kSimple.find(text_[at_]) != kSimple.npos;
    at_ += good ? 1 : 0;
    return good;
  }

  bool digits() {
    const size_t from = at_;
    while (is_digit(here())) {
      ++at_;
    }
    return at_ > from;
  }
  bool number() {
    take('-');
    bool good = take('0') || digits();
    good = good && (!take('.') || digits());
    if (good && (take('e') || take('E'))) {
      take('+') || take('-');
      good = digits();
    }
    return good || wrong("a malformed number");
  }
  bool word() {
    for (const std::string_view known : {"true", "false", "null"}) {
      if (text_.substr(at_).starts_with(known)) {
        at_ += known.size();
        return true;
      }
    }
    return wrong(at_ == text_.size() ? "the end where a value should be" : "what is no value");
  }

  std::string_view text_;
  size_t at_ = 0;
  const char* wrong_ = nullptr;
};

void append_utf8(std::string& out, uint32_t code) {
  const auto add = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    return add(code);
  }
  if (code < 0x800) {
    add(0xC0 | code >> 6);
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3F));
  } else {
    add(0xF0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3F));
    add(0x80 | (code >> 6 & 0x3F));
  }
  add(0x80 | (code & 0x3F));
}

uint32_t code_unit(std::string_view hex) {
  uint32_t unit = 0;
  for (const char c : hex) {
    unit = unit << 4 | static_cast<uint32_t>(hex_value(c));
  }
  return unit;
}

// A string as it stands, checked: its characters. Nothing: half of a surrogate pair is in it.
std::optional<std::string> unescaped(std::string_view quoted) {
  constexpr std::string_view kFrom = "\"\\/bfnrt";
  constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
  std::string out;
  for (size_t i = 1; i + 1 < quoted.size(); ++i) {
    if (quoted[i] != '\\') {
      out += quoted[i];
      continue;
    }
    if (quoted[++i] != 'u') {
      out += kTo[kFrom.find(quoted[i])];
      continue;
    }
    uint32_t code = code_unit(quoted.substr(i + 1, 4));
    i += 4;
    if (code >= 0xD800 && code < 0xE000) {
      const bool pair = code < 0xDC00 && quoted.substr(i + 1, 2) == "\\u";
      const uint32_t low = pair ? code_unit(quoted.substr(i + 3, 4)) : 0;
      if (low < 0xDC00 || low > 0xDFFF) {
        return std::nullopt;
      }
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      i += 6;
    }
    append_utf8(out, code);
  }
  return out;
}

}  // namespace

Status check_json(std::string_view text) { return Scanner(text).all(nullptr); }

Result<VerbatimObject> VerbatimObject::read(std::string_view text) {
  VerbatimObject object;
  const Status good = Scanner(text).all([&](std::string_view name, std::string_view value) {
    if (auto plain = unescaped(name)) {
      object.members_.insert_or_assign(*std::move(plain), value);
    }
  });
  if (!good) {
    return good.error();
  }
  if (text[text.find_first_not_of(" \t\r\n")] != '{') {
    return Error{"a value that is no object"};
  }
  return object;
}

std::string_view VerbatimObject::operator[](std::string_view name) const {
  const auto found = members_.find(name);
  return found != members_.end() ? found->second : std::string_view();
}

std::string VerbatimObject::text(std::string_view name) const {
  const std::string_view value = (*this)[name];
  return value.starts_with('"') ? unescaped(value).value_or("") : "";
}

std::string compact_json(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (in_string && json[i] == '\\') {
      out += json[i++];
    } else if (json[i] == '"') {
      in_string = !in_string;
    } else if (!in_string && is_space(json[i])) {
      continue;
    }
    out += json[i];
  }
  return out;
}

}  // namespace penstock::ctl
