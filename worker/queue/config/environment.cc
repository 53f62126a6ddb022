#include "worker/queue/config/environment.h"

#include <algorithm>
#include <cstdlib>

namespace penstock::queue {
namespace {

bool is_variable(std::string_view name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
  return !name.empty() && !(name.front() >= '0' && name.front() <= '9') &&
         name.find_first_not_of(kAllowed) == name.npos;
}

// Of what stands between the braces.
Result<std::string> value_of(std::string_view inside) {
  const size_t default_at = inside.find(":-");
  const std::string name(inside.substr(0, default_at));
  if (!is_variable(name)) {
    return Error{"a variable is written as ${NAME} or ${NAME:-default}; $${ is a plain ${"};
  }
  const char* const value = std::getenv(name.c_str());
  if (value != nullptr && *value != '\0') {
    return std::string(value);
  }
  if (default_at == inside.npos) {
    return Error{"the environment has no " + name + "; set it, or write ${" + name + ":-default}"};
  }
  return std::string(inside.substr(default_at + 2));
}

}  // namespace

Result<std::string> with_environment(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = std::min(text.find("${", at), text.size());
    out.append(text.substr(at, begin - at));
    if (begin == text.size()) {
      break;
    }
    if (begin > at && text[begin - 1] == '$') {
      out += '{';
      at = begin + 2;
      continue;
    }
    const size_t end = text.find('}', begin);
    const auto value = value_of(end == text.npos ? "" : text.substr(begin + 2, end - begin - 2));
    if (!value) {
      return value.error();
    }
    out += *value;
    at = end + 1;
  }
  return out;
}

}  // namespace penstock::queue
