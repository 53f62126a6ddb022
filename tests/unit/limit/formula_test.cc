#include "shared/limit/formula.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace penstock::limit {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinite = std::numeric_limits<double>::infinity();

// The formula's value; its names are given theirs in the order in which they occur.
double value(std::string_view text, std::vector<double> values = {}) {
  const auto formula = Formula::parse(text);
  EXPECT_TRUE(formula) << text << ": " << (formula ? "" : formula.error().message);
  return formula ? formula->evaluate(values) : kMissing;
}

std::string error(std::string_view text) {
  const auto formula = Formula::parse(text);
  return formula ? "none" : formula.error().message;
}

std::vector<std::string> names(std::string_view text) {
  const auto formula = Formula::parse(text);
  return formula ? std::vector<std::string>(formula->names().begin(), formula->names().end())
                 : std::vector<std::string>{formula.error().message};
}

std::string repeated(std::string_view text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) {
    all += text;
  }
  return all;
}

TEST(FormulaTest, WeighsAnImageByItsFields) {
  const std::string_view text = "(n|1) * (steps|30) * size / 20000000";
  EXPECT_EQ(names(text), (std::vector<std::string>{"n", "steps", "size"}));
  EXPECT_EQ(value(text, {2, 50, 1048576}), 2.0 * 50 * 1048576 / 20000000);
  EXPECT_EQ(value(text, {kMissing, kMissing, 1048576}), 30.0 * 1048576 / 20000000);
  EXPECT_TRUE(std::isnan(value(text, {2, 50, kMissing}))) << "size has no default";
}

TEST(FormulaTest, BindsDefaultsThenSignsThenProductsThenSums) {
  EXPECT_EQ(value("1 + 2 * 3"), 7);
  EXPECT_EQ(value("(1 + 2) * 3"), 9);
  EXPECT_EQ(value("10 - 4 - 3"), 3);
  EXPECT_EQ(value("24 / 4 / 3 * 2"), 4);
  EXPECT_EQ(value("2 * a|3 * 4", {kMissing}), 24);
  EXPECT_EQ(value("-a|3", {kMissing}), -3);
  EXPECT_EQ(value("a|-3 + 1", {kMissing}), -2);
  EXPECT_EQ(value("a|b|7 - 1", {kMissing, kMissing}), 6);
  EXPECT_EQ(value("a|b|7", {kMissing, 5}), 5);
  EXPECT_EQ(value("--2 - -3"), 5);
}

TEST(FormulaTest, KnowsMinMaxAndCeil) {
  EXPECT_EQ(value("min(2, 3) + max(2, 3) * 10"), 32);
  EXPECT_EQ(value("ceil(7 / 2)"), 4);
  EXPECT_EQ(value("ceil ( -0.5 )"), 0);
  EXPECT_EQ(value("min + max(ceil, 1)", {4, 5}), 9) << "without a parenthesis they are fields";
}

TEST(FormulaTest, ReadsNumbersAndSpaceAnywhere) {
  EXPECT_EQ(value("\t1e3\r\n+ 0.5 "), 1000.5);
  EXPECT_EQ(value("2e-1*3E+2"), 60);
  EXPECT_EQ(value("5-3"), 2);
}

TEST(FormulaTest, GivesEachNameOnce) {
  EXPECT_EQ(names("b + a * b|a - _x1"), (std::vector<std::string>{"b", "a", "_x1"}));
  EXPECT_EQ(names("7"), std::vector<std::string>{});
  EXPECT_EQ(value("a - a / b", {6, 3}), 4);
}

TEST(FormulaTest, TakesTheDefaultWhenAnythingIsMissingForWhatIsBeforeIt) {
  EXPECT_EQ(value("(width * height)|size", {kMissing, 3, 100}), 100);
  EXPECT_EQ(value("(width * height)|size", {2, 3, kMissing}), 6) << "the default is not needed";
  EXPECT_EQ(value("min(a, 1)|5", {kMissing}), 5);
  EXPECT_EQ(value("a|5", {0}), 0) << "zero is not missing";
}

TEST(FormulaTest, IsMissingWhenAValueWithoutDefaultIs) {
  for (const char* text :
       {"a", "-a", "a + 1", "a * 0", "min(a, 1)", "max(1, a)", "ceil(a)", "a|a"}) {
    EXPECT_TRUE(std::isnan(value(text, {kMissing}))) << text;
    EXPECT_TRUE(std::isnan(value(text, {}))) << text << ": fewer values than names";
  }
}

TEST(FormulaTest, HasNoAnswerBeyondArithmeticAndNothingHidesIt) {
  for (const char* text : {"1 / 0", "-1 / 0", "0 / 0", "1 / (1 / 0)", "(1 / 0)|5", "(0 / 0)|5",
                           "min(1 / 0, 5)", "max(-(1 / 0), 5)", "0 * (1 / 0)", "ceil(1 / 0)",
                           "1e308 * 10", "-1e308 - 1e308", "1 / (1 - 1)"}) {
    EXPECT_TRUE(std::isnan(value(text))) << text;
  }
  for (const char* text : {"a", "a|5", "min(a, 5)", "1 / a", "0 * a"}) {
    EXPECT_TRUE(std::isnan(value(text, {kInfinite}))) << text;
    EXPECT_TRUE(std::isnan(value(text, {-kInfinite}))) << text;
  }
  EXPECT_EQ(value("a|(1 / 0)", {2}), 2) << "what is not needed does no harm";
}

TEST(FormulaTest, SaysWhatIsWrongAndWhere) {
  const std::string begin = "at character ";
  const std::string middle = " of the formula: ";
  const std::string operand = ", expected a number, the name of a field, min, max, ceil or (";
  const std::string after = ", expected one of + - * / | or the end";
  EXPECT_EQ(error(" "), begin + "2" + middle + "the formula is empty: write for example (n|1) * 2");
  EXPECT_EQ(error("1 + * 2"), begin + "5" + middle + "found *" + operand);
  EXPECT_EQ(error("1 +"), begin + "4" + middle + "found the end" + operand);
  EXPECT_EQ(error("n || 1"), begin + "4" + middle + "found |" + operand);
  EXPECT_EQ(error("+1"), begin + "1" + middle + "found +" + operand);
  EXPECT_EQ(error("n % 2"), begin + "3" + middle + "found %" + after);
  EXPECT_EQ(error("2 n"), begin + "3" + middle + "found n" + after);
  EXPECT_EQ(error("1)"), begin + "2" + middle + "found )" + after);
  EXPECT_EQ(error("n \xC3\xA9"), begin + "3" + middle + "found byte 195" + after);
  EXPECT_EQ(error(std::string_view("n\0", 2)), begin + "2" + middle + "found byte 0" + after);
  EXPECT_EQ(error("2 * (n + 1"), begin + "11" + middle +
                                     "found the end, expected an operator, or ) for the ( at "
                                     "character 5");
  EXPECT_EQ(error("1 + floor(n)"),
            begin + "5" + middle +
                "there is no function floor: there are min(a, b), max(a, b) and ceil(a)");
  EXPECT_EQ(error("min(n)"),
            begin + "6" + middle + "found ), expected a comma: min and max are of two values");
  EXPECT_EQ(error("ceil(n, 2)"),
            begin + "7" + middle + "found ,, expected an operator, or ) for the ( at character 5");
  EXPECT_EQ(error("2 * 1e999"), begin + "5" + middle +
                                    "no double holds this number: write one between 1e-307 and "
                                    "1e308");
}

TEST(FormulaTest, RefusesWhatIsBeyondItsLimits) {
  EXPECT_EQ(value("-1" + repeated("+1", 31)), 30);
  EXPECT_EQ(error("1" + repeated("+1", 32)),
            "at character 66 of the formula: more than 64 numbers, names and operators up to here: "
            "write it shorter");
  EXPECT_EQ(names("a+b+c+d+e+f+g+h").size(), 8U);
  EXPECT_EQ(error("a+b+c+d+e+f+g+h+i"),
            "at character 17 of the formula: more than 8 different names: use fewer fields");
  EXPECT_EQ(value(std::string(64, 'n'), {3}), 3);
  EXPECT_NE(error("1+" + std::string(65, 'n')).find("at character 3 "), std::string::npos);
  EXPECT_EQ(value(repeated("(", 31) + "5" + repeated(")", 31)), 5);
  for (const char* nest : {"(", "-", "ceil(", "1|"}) {
    EXPECT_NE(error(repeated(nest, 100'000)).find("in each other"), std::string::npos) << nest;
  }
}

// A second reading of the same grammar, as slow and plain as can be: cut the text at the operator
// that binds least, outside of parentheses, and read both sides.
class SlowReading {
 public:
  explicit SlowReading(double a, double b) : a_(a), b_(b) {}

  double operator()(std::string_view text) const {
    text = trimmed(text);
    if (const size_t at = last_of(text, "+-"); at != std::string_view::npos) {
      const double left = (*this)(text.substr(0, at));
      const double right = (*this)(text.substr(at + 1));
      return answer(left, right, text[at] == '+' ? left + right : left - right);
    }
    if (const size_t at = last_of(text, "*/"); at != std::string_view::npos) {
      const double left = (*this)(text.substr(0, at));
      const double right = (*this)(text.substr(at + 1));
      return answer(left, right, text[at] == '*' ? left * right : left / right);
    }
    if (text.starts_with('-')) {
      return -(*this)(text.substr(1));
    }
    if (const size_t at = first_bar(text); at != std::string_view::npos) {
      const double left = (*this)(text.substr(0, at));
      return std::isnan(left) ? (*this)(text.substr(at + 1)) : left;
    }
    return single(text);
  }

 private:
  double single(std::string_view text) const {
    if (text.starts_with('(')) {
      return (*this)(text.substr(1, text.size() - 2));
    }
    if (text.starts_with("ceil")) {
      return std::ceil((*this)(text.substr(5, text.size() - 6)));
    }
    if (text == "a" || text == "b") {
      return text == "a" ? a_ : b_;
    }
    return std::stod(std::string(text));
  }

  // NaN is missing, infinite is without answer and stays so.
  static double answer(double left, double right, double result) {
    if (std::isnan(left) || std::isnan(right)) {
      return kMissing;
    }
    return std::isinf(left) || std::isinf(right) || std::isnan(result) ? kInfinite : result;
  }

  static std::string_view trimmed(std::string_view text) {
    const size_t begin = text.find_first_not_of(' ');
    return text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
  }

  // Operators between two operands: a minus behind nothing or another operator is a sign.
  static size_t last_of(std::string_view text, std::string_view operators) {
    size_t found = std::string_view::npos;
    int depth = 0;
    char before = '(';
    for (size_t i = 0; i < text.size(); ++i) {
      const bool is_sign = std::string_view("(+-*/|").find(before) != std::string_view::npos;
      if (depth == 0 && !is_sign && operators.find(text[i]) != std::string_view::npos) {
        found = i;
      }
      depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
      before = text[i] == ' ' ? before : text[i];
    }
    return found;
  }

  static size_t first_bar(std::string_view text) {
    int depth = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      if (depth == 0 && text[i] == '|') {
        return i;
      }
      depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
    }
    return std::string_view::npos;
  }

  double a_;
  double b_;
};

class RandomFormula {
 public:
  std::string sum(int depth) {
    std::string text = operand(depth);
    for (uint64_t more = below(4); more > 0; --more) {
      text += space() + std::string(1, "+-*/"[below(4)]) + space() + operand(depth);
    }
    return text;
  }
  uint64_t below(uint64_t n) { return random_() % n; }

 private:
  std::string operand(int depth) {
    const std::string sign = below(5) == 0 ? "-" + space() : "";
    return sign + value(depth) + (below(3) == 0 ? space() + "|" + space() + operand(depth) : "");
  }
  std::string value(int depth) {
    switch (below(depth > 0 ? 6 : 4)) {
      case 0:
        return "a";
      case 1:
        return "b";
      case 4:
        return "(" + sum(depth - 1) + ")";
      case 5:
        return "ceil(" + sum(depth - 1) + ")";
      default:
        return std::to_string(1 + below(9)) + (below(2) == 0 ? ".25" : "");
    }
  }
  std::string space() { return std::string(below(2), ' '); }

  std::mt19937_64 random_{7};
};

TEST(FormulaTest, AgreesWithASlowReadingOfRandomFormulas) {
  RandomFormula random;
  int compared = 0;
  for (int i = 0; i < 50'000; ++i) {
    const std::string text = random.sum(2);
    const auto formula = Formula::parse(text);
    if (!formula) {
      ASSERT_NE(formula.error().message.find("more than"), std::string::npos) << text;
      continue;
    }
    const double a = random.below(2) == 0 ? kMissing : 2.5;
    const double b = random.below(2) == 0 ? kMissing : -3;
    std::vector<double> values;
    for (const std::string_view name : formula->names()) {
      values.push_back(name == "a" ? a : b);
    }
    const double slow = SlowReading(a, b)(text);
    const double fast = formula->evaluate(values);
    ASSERT_EQ(std::isfinite(fast), std::isfinite(slow)) << text;
    if (std::isfinite(slow)) {
      ASSERT_EQ(fast, slow) << text;
      ++compared;
    }
  }
  EXPECT_GT(compared, 10'000);
}

}  // namespace
}  // namespace penstock::limit
