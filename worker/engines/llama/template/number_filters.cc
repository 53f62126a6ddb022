#include "worker/engines/llama/template/number_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/characters.h"

namespace penstock::llama::jinja {

Value to_int(Context&, const Value& subject, const Arguments& arguments) {
  const Value* given = arguments.find(0, "default");
  const Value absent = given != nullptr ? *given : Value(int64_t{0});
  int64_t number = 0;
  double real = 0;
  if (is_integer(subject, number)) {
    return number;
  }
  if (as<Text>(subject) != nullptr) {
    const Text bare = trimmed(*as<Text>(subject), nullptr, true, true);
    std::string_view digits = bare.bytes();
    digits.remove_prefix(digits.starts_with('+') ? 1 : 0);
    const auto whole = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (whole.ec == std::errc{} && whole.ptr == digits.data() + digits.size()) {
      return number;
    }
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), real);
    if (read.ec != std::errc{} || read.ptr != digits.data() + digits.size()) {
      return absent;
    }
  } else if (!is_number(subject, real)) {
    return absent;
  }
  return std::abs(real) < 9e18 ? Value(static_cast<int64_t>(real)) : absent;
}

Value to_float(Context&, const Value& subject, const Arguments& arguments) {
  const Value* given = arguments.find(0, "default");
  double number = 0;
  if (is_number(subject, number)) {
    return number;
  }
  const Text bare =
      as<Text>(subject) == nullptr ? Text() : trimmed(*as<Text>(subject), nullptr, true, true);
  std::string_view digits = bare.bytes();
  digits.remove_prefix(digits.starts_with('+') ? 1 : 0);
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool whole =
      !digits.empty() && read.ec == std::errc{} && read.ptr == digits.data() + digits.size();
  return whole ? Value(number) : given != nullptr ? *given : Value(0.0);
}

Value absolute(Context& context, const Value& subject, const Arguments&) {
  int64_t number = 0;
  double real = 0;
  if (is_integer(subject, number)) {
    return number < 0 ? binary(context, "-", int64_t{0}, number) : Value(number);
  }
  return is_number(subject, real) ? Value(std::abs(real))
                                  : context.fail(std::string("abs of ") + kind_of(subject));
}

Value round(Context& context, const Value& subject, const Arguments& arguments) {
  double number = 0;
  const int64_t digits = integer_argument(context, arguments, 0, "precision", 0);
  const std::string_view method = text_argument(context, arguments, 1, "method", "common");
  if (!is_number(subject, number) || digits < 0 || digits > 15) {
    return context.fail(std::string("round of ") + kind_of(subject) + " to 0 .. 15 digits");
  }
  if (int64_t integer = 0; is_integer(subject, integer) && method == "common") {
    return integer;
  }
  const double scale = std::pow(10, static_cast<double>(digits));
  if (method == "common") {  // halves go to the even neighbour
    return std::nearbyint(number * scale) / scale;
  }
  return (method == "ceil" ? std::ceil(number * scale) : std::floor(number * scale)) / scale;
}

}  // namespace penstock::llama::jinja
