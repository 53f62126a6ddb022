#include "shared/http/idempotency_key.h"

#include "shared/http/structured_field.h"

namespace penstock::http {
namespace {

Error wrong(const std::string& what) {
  return Error{"Idempotency-Key " + what +
               "; write it as a string in quotes, as in "
               "Idempotency-Key: \"8e03978e-40d5\"."};
}

}  // namespace

Result<std::string> parse_idempotency_key(std::string_view text) {
  const size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos || text[begin] != '"') {
    return wrong("does not begin with a quote");
  }
  std::string key;
  size_t at = begin + 1;
  for (; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\' &&
        (at + 1 == text.size() || (text[at + 1] != '"' && text[at + 1] != '\\'))) {
      return wrong("has a backslash before something other than a quote or a backslash");
    }
    at += text[at] == '\\' ? 1 : 0;
    if (text[at] < 0x20 || text[at] > 0x7E) {
      return wrong("has a character that is not printable ASCII");
    }
    key.push_back(text[at]);
    if (key.size() > kMaxIdempotencyKey) {
      return wrong("is longer than " + std::to_string(kMaxIdempotencyKey) + " characters");
    }
  }
  if (at == text.size()) {
    return wrong("does not end with a quote");
  }
  const size_t end = parameters_end(text, at + 1);
  if (end == std::string_view::npos || text.find_first_not_of(' ', end) != text.npos) {
    return wrong("goes on behind its closing quote");
  }
  if (key.empty()) {
    return wrong("is empty");
  }
  return key;
}

}  // namespace penstock::http
