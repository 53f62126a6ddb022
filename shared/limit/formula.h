// An operator's formula for what a request costs, over fields of its body.
//
//   Result<Formula> cost = Formula::parse("(n|1) * (steps|30) * size / 20000000");
//   cost->names()                            // n, steps, size: whose values evaluate() asks for
//   cost->evaluate({{NAN, 50, 1048576}})     // 1 * 50 * 1048576 / 20000000 = 2.62144
//
//   sum     = product  { ("+" | "-") product }
//   product = operand  { ("*" | "/") operand }
//   operand = "-" operand | value [ "|" operand ]
//   value   = number | name | "(" sum ")"
//           | "min(" sum "," sum ")" | "max(" sum "," sum ")" | "ceil(" sum ")"
//
// a|b is a, unless something is missing for it: then b. A number is decimal (30, 0.5, 2e7); a name
// is [A-Za-z_][A-Za-z0-9_]*, and one with "(" behind it is a function.
//
// Parsed once, when the configuration is read, into a list of operations in postfix order;
// evaluated for each request without allocating, in O(operations). A formula is a plain value that
// can be copied anywhere, as long as its text stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::limit {

class Formula {
 public:
  static constexpr size_t kMaxOperations = 64;  // numbers, names, operators and functions
  static constexpr size_t kMaxNames = 8;        // that differ
  static constexpr size_t kMaxNameBytes = 64;
  static constexpr size_t kMaxNesting = 32;

  // An error says at which character (the first is 1) what is wrong, and what would be right.
  // REQUIRES: text outlives the formula: names() are parts of it.
  static Result<Formula> parse(std::string_view text);

  // Each once, in the order in which they first occur.
  std::span<const std::string_view> names() const noexcept { return {names_, name_count_}; }

  // The cost, given the names' values in the order of names(); NaN, or one too few, is missing.
  //
  // NaN when a value without a default is missing, or there is no answer: a division by zero, a
  // number beyond double, or an infinite value among those given. No default stands in for what has
  // no answer, and neither min nor max hides it. Else finite, but it may be negative.
  double evaluate(std::span<const double> values) const noexcept;

 private:
  class Parser;
  enum class Code : uint8_t {
    kNumber,
    kName,
    kAdd,
    kSubtract,
    kMultiply,
    kDivide,
    kMin,
    kMax,
    kDefault,
    kNegate,
    kCeil
  };
  struct Operation {
    Code code;
    uint8_t name;   // kName: which of names_
    double number;  // kNumber
  };
  static double apply(Code code, double a) noexcept;
  static double apply(Code code, double a, double b) noexcept;

  Formula() = default;

  // In postfix order: takes its operands off the stack and pushes its result. The parser sees to it
  // that they are there, and that one value is left.
  Operation operations_[kMaxOperations];
  std::string_view names_[kMaxNames];
  uint8_t operation_count_ = 0;
  uint8_t name_count_ = 0;
};

}  // namespace penstock::limit
