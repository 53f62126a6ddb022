#include "shared/http/json_number.h"

#include <charconv>
#include <limits>

namespace penstock::http {

bool is_json_number(std::string_view text) noexcept {
  const size_t begin = text.starts_with('-') ? 1 : 0;
  size_t i = after_digits(text, begin);
  bool good = i > begin;
  if (i < text.size() && text[i] == '.') {
    const size_t fraction = i + 1;
    i = after_digits(text, fraction);
    good = good && i > fraction;
  }
  if (i < text.size() && (text[i] | 0x20) == 'e') {
    const size_t sign = i + 1;
    const size_t exponent =
        sign < text.size() && (text[sign] == '+' || text[sign] == '-') ? sign + 1 : sign;
    i = after_digits(text, exponent);
    good = good && i > exponent;
  }
  return good && i == text.size();
}

double to_double(std::string_view text) noexcept {
  double value = 0;
  const auto error = std::from_chars(text.data(), text.data() + text.size(), value).ec;
  return error == std::errc() ? value : std::numeric_limits<double>::infinity();
}

double string_to_double(std::string_view text) noexcept {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  if (is_json_number(text)) {
    return to_double(text);
  }
  const size_t x = after_digits(text, 0);
  if (x == 0 || x + 1 >= text.size() || text[x] != 'x' || after_digits(text, x + 1) < text.size()) {
    return kNaN;
  }
  return to_double(text.substr(0, x)) * to_double(text.substr(x + 1));
}

}  // namespace penstock::http
