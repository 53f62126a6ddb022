#include "shared/limit/formula.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

namespace penstock::limit {
namespace {

// While a formula is evaluated, NaN is what is missing, and infinity what has no answer.
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr double kNoAnswer = std::numeric_limits<double>::infinity();

bool is_space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool begins_name(char c) noexcept {
  const char lower = static_cast<char>(c | 0x20);
  return (lower >= 'a' && lower <= 'z') || c == '_';
}

}  // namespace

// Recursive descent: one function for each rule of the grammar. Each returns false once something
// is wrong, which error_ then says.
class Formula::Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Formula> parse() {
    if (!whole()) {
      return Error{std::move(error_)};
    }
    return formula_;
  }

 private:
  bool whole() {
    if (peek() == '\0' && at_ == text_.size()) {
      return fail(at_, "the formula is empty: write for example (n|1) * 2");
    }
    if (!sum()) {
      return false;
    }
    return peek() == '\0' && at_ == text_.size() ? true : unexpected("one of + - * / | or the end");
  }

  bool sum() {
    if (!product()) {
      return false;
    }
    while (peek() == '+' || peek() == '-') {
      const Code code = text_[at_++] == '+' ? Code::kAdd : Code::kSubtract;
      if (!product() || !push({code})) {
        return false;
      }
    }
    return true;
  }

  bool product() {
    if (!operand()) {
      return false;
    }
    while (peek() == '*' || peek() == '/') {
      const Code code = text_[at_++] == '*' ? Code::kMultiply : Code::kDivide;
      if (!operand() || !push({code})) {
        return false;
      }
    }
    return true;
  }

  // All that nests comes by here.
  bool operand() {
    if (++nesting_ > kMaxNesting) {
      return fail(at_, "more than " + std::to_string(kMaxNesting) +
                           " parentheses, signs and defaults in each other: write it flatter");
    }
    const bool good = take('-') ? operand() && push({Code::kNegate}) : value_or_default();
    --nesting_;
    return good;
  }

  bool value_or_default() {
    if (!value()) {
      return false;
    }
    return !take('|') || (operand() && push({Code::kDefault}));
  }

  bool value() {
    const char c = peek();
    if (is_digit(c)) {
      return number();
    }
    if (begins_name(c)) {
      return name_or_function();
    }
    const size_t open = at_;
    if (take('(')) {
      return sum() && close(open);
    }
    return unexpected("a number, the name of a field, min, max, ceil or (");
  }

  bool number() {
    double number = 0;
    const char* const begin = text_.data() + at_;
    const auto [rest, error] = std::from_chars(begin, text_.data() + text_.size(), number);
    if (error != std::errc()) {
      return fail(at_, "no double holds this number: write one between 1e-307 and 1e308");
    }
    at_ += static_cast<size_t>(rest - begin);
    return push({Code::kNumber, 0, number});
  }

  bool name_or_function() {
    const size_t begin = at_;
    while (at_ < text_.size() && (begins_name(text_[at_]) || is_digit(text_[at_]))) {
      ++at_;
    }
    const std::string_view name = text_.substr(begin, at_ - begin);
    return peek() == '(' ? function(name, begin) : field(name, begin);
  }

  bool function(std::string_view name, size_t begin) {
    const size_t open = at_++;
    if (name == "ceil") {
      return sum() && close(open) && push({Code::kCeil});
    }
    if (name != "min" && name != "max") {
      return fail(begin, "there is no function " + std::string(name.substr(0, kMaxNameBytes)) +
                             ": there are min(a, b), max(a, b) and ceil(a)");
    }
    if (!sum()) {
      return false;
    }
    if (!take(',')) {
      return unexpected("a comma: min and max are of two values");
    }
    return sum() && close(open) && push({name == "min" ? Code::kMin : Code::kMax});
  }

  bool field(std::string_view name, size_t begin) {
    const auto names = formula_.names();
    const size_t i = static_cast<size_t>(std::ranges::find(names, name) - names.begin());
    if (i == names.size()) {
      if (name.size() > kMaxNameBytes) {
        return fail(begin, "a name of more than " + std::to_string(kMaxNameBytes) +
                               " characters: no field with so long a name is looked for");
      }
      if (i == kMaxNames) {
        return fail(
            begin, "more than " + std::to_string(kMaxNames) + " different names: use fewer fields");
      }
      formula_.names_[formula_.name_count_++] = name;
    }
    return push({Code::kName, static_cast<uint8_t>(i)});
  }

  bool push(Operation operation) {
    if (formula_.operation_count_ == kMaxOperations) {
      return fail(at_, "more than " + std::to_string(kMaxOperations) +
                           " numbers, names and operators up to here: write it shorter");
    }
    formula_.operations_[formula_.operation_count_++] = operation;
    return true;
  }

  // The next character that is not space; '\0' at the end.
  char peek() {
    while (at_ < text_.size() && is_space(text_[at_])) {
      ++at_;
    }
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool take(char c) {
    const bool there = peek() == c;
    at_ += there ? 1 : 0;
    return there;
  }

  bool close(size_t open) {
    return take(')')
               ? true
               : unexpected("an operator, or ) for the ( at character " + std::to_string(open + 1));
  }

  bool unexpected(const std::string& wanted) {
    const char c = peek();
    std::string found = "the end";
    if (at_ < text_.size()) {
      found = c > ' ' && c < 0x7F ? std::string(1, c)
                                  : "byte " + std::to_string(static_cast<uint8_t>(c));
    }
    return fail(at_, "found " + found + ", expected " + wanted);
  }

  bool fail(size_t at, const std::string& what) {
    error_ = "at character " + std::to_string(at + 1) + " of the formula: " + what;
    return false;
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t nesting_ = 0;
  Formula formula_;
  std::string error_;
};

static_assert(std::is_trivially_copyable_v<Formula>);

Result<Formula> Formula::parse(std::string_view text) { return Parser(text).parse(); }

double Formula::evaluate(std::span<const double> values) const noexcept {
  double stack[kMaxOperations] = {};
  size_t top = 0;  // values on the stack
  for (const Operation& operation : std::span(operations_, operation_count_)) {
    switch (operation.code) {
      case Code::kNumber:
        stack[top++] = operation.number;
        break;
      case Code::kName:
        stack[top++] = operation.name < values.size() ? values[operation.name] : kMissing;
        break;
      case Code::kNegate:
      case Code::kCeil:
        stack[top - 1] = apply(operation.code, stack[top - 1]);
        break;
      default:
        --top;
        stack[top - 1] = apply(operation.code, stack[top - 1], stack[top]);
    }
  }
  return std::isfinite(stack[0]) ? stack[0] : kMissing;
}

double Formula::apply(Code code, double a) noexcept {
  return code == Code::kCeil ? std::ceil(a) : -a;
}

double Formula::apply(Code code, double a, double b) noexcept {
  if (code == Code::kDefault) {
    return std::isnan(a) ? b : a;
  }
  if (std::isnan(a) || std::isnan(b)) {
    return kMissing;
  }
  if (std::isinf(a) || std::isinf(b)) {
    return kNoAnswer;
  }
  double result = kNoAnswer;
  switch (code) {
    case Code::kAdd:
      result = a + b;
      break;
    case Code::kSubtract:
      result = a - b;
      break;
    case Code::kMultiply:
      result = a * b;
      break;
    case Code::kDivide:
      result = b == 0 ? kNoAnswer : a / b;
      break;
    case Code::kMin:
      result = std::min(a, b);
      break;
    case Code::kMax:
      result = std::max(a, b);
      break;
    default:
      break;
  }
  return result;
}

}  // namespace penstock::limit
