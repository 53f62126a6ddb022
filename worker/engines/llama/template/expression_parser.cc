#include "worker/engines/llama/template/expression_parser.h"

#include <algorithm>
#include <charconv>

#include "worker/engines/llama/template/builtins.h"

namespace penstock::llama::jinja {
namespace {

constexpr int kMaxDepth = 100;

}  // namespace

const Token& ExpressionParser::token(size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

bool ExpressionParser::is_operator(std::string_view text, size_t ahead) const {
  return token(ahead).kind == Token::Kind::kOperator && token(ahead).text == text;
}

bool ExpressionParser::is_name(std::string_view text, size_t ahead) const {
  return token(ahead).kind == Token::Kind::kName && token(ahead).text == text;
}

bool ExpressionParser::take_operator(std::string_view text) {
  const bool there = is_operator(text);
  if (there) {
    next();
  }
  return there;
}

bool ExpressionParser::take_name(std::string_view text) {
  const bool there = is_name(text);
  if (there) {
    next();
  }
  return there;
}

void ExpressionParser::expect_operator(std::string_view text) {
  if (!take_operator(text)) {
    fail("expected '" + std::string(text) + "'");
  }
}

std::string ExpressionParser::expect_name(const char* what) {
  const std::string name = token().text;
  if (token().kind != Token::Kind::kName) {
    fail(std::string("expected ") + what);
  }
  next();
  return name;
}

void ExpressionParser::fail(const std::string& what) {
  if (!failed()) {
    const std::string& found = token().text;
    error_ = "line " + std::to_string(token().line) + ": " + what;
    if (!found.empty()) {
      error_ += ", at '" + found.substr(0, 40) + "'";
    }
  }
}

// A level further down; depth_ goes back where this was called.
bool ExpressionParser::enter() {
  if (depth_ >= kMaxDepth) {
    fail("expressions nest deeper than " + std::to_string(kMaxDepth));
  }
  return !failed();
}

Value ExpressionParser::constant(std::string_view text) {
  return heap_.add(Text(text, Hand::kTemplate));
}

Expression ExpressionParser::made(Kind kind, std::vector<Expression> parts, std::string name) {
  Expression made;
  made.kind = kind;
  made.name = std::move(name);
  made.parts = std::move(parts);
  for (const Expression& part : made.parts) {
    made.depth = std::max(made.depth, part.depth + 1);
  }
  if (made.depth > kMaxDepth) {
    fail("expressions nest deeper than " + std::to_string(kMaxDepth));
    return {};
  }
  return made;
}

Expression ExpressionParser::expression() {
  if (!enter()) {
    return {};
  }
  ++depth_;
  Expression value = disjunction();
  while (!failed() && take_name("if")) {
    std::vector<Expression> parts;
    parts.push_back(std::move(value));
    parts.push_back(disjunction());
    parts.push_back(take_name("else") ? expression() : Expression{});
    value = made(Kind::kCondition, std::move(parts));
  }
  --depth_;
  return value;
}

Expression ExpressionParser::expression_list() {
  Expression first = expression();
  if (!is_operator(",")) {
    return first;
  }
  std::vector<Expression> parts;
  parts.push_back(std::move(first));
  while (!failed() && take_operator(",")) {
    const Token::Kind kind = token().kind;
    if (kind == Token::Kind::kBlockEnd || kind == Token::Kind::kPrintEnd || is_operator(")")) {
      break;
    }
    parts.push_back(expression());
  }
  return made(Kind::kTuple, std::move(parts));
}

Expression ExpressionParser::disjunction() {
  Expression left = conjunction();
  while (!failed() && take_name("or")) {
    std::vector<Expression> parts;
    parts.push_back(std::move(left));
    parts.push_back(conjunction());
    left = made(Kind::kOr, std::move(parts));
  }
  return left;
}

Expression ExpressionParser::conjunction() {
  Expression left = negation();
  while (!failed() && take_name("and")) {
    std::vector<Expression> parts;
    parts.push_back(std::move(left));
    parts.push_back(negation());
    left = made(Kind::kAnd, std::move(parts));
  }
  return left;
}

Expression ExpressionParser::negation() {
  if (!is_name("not")) {
    return comparison();
  }
  if (!enter()) {
    return {};
  }
  next();
  ++depth_;
  std::vector<Expression> parts;
  parts.push_back(negation());
  --depth_;
  return made(Kind::kNot, std::move(parts));
}

Expression ExpressionParser::comparison() {
  Expression first = sum();
  std::vector<std::string> operators;
  std::vector<Expression> parts;
  while (!failed()) {
    std::string op;
    for (const std::string_view known : {"==", "!=", "<", "<=", ">", ">="}) {
      op = is_operator(known) ? known : op;
    }
    if (is_name("in")) {
      op = "in";
    } else if (is_name("not") && is_name("in", 1)) {
      next();
      op = "not in";
    }
    if (op.empty()) {
      break;
    }
    next();
    operators.push_back(std::move(op));
    parts.push_back(sum());
  }
  if (operators.empty()) {
    return first;
  }
  parts.insert(parts.begin(), std::move(first));
  Expression compared = made(Kind::kCompare, std::move(parts));
  compared.operators = std::move(operators);
  return compared;
}

Expression ExpressionParser::sum() {
  Expression left = concatenation();
  while (!failed() && (is_operator("+") || is_operator("-"))) {
    std::string op = token().text;
    next();
    std::vector<Expression> parts;
    parts.push_back(std::move(left));
    parts.push_back(concatenation());
    left = made(Kind::kBinary, std::move(parts), std::move(op));
  }
  return left;
}

Expression ExpressionParser::concatenation() {
  Expression first = product();
  if (!is_operator("~")) {
    return first;
  }
  std::vector<Expression> parts;
  parts.push_back(std::move(first));
  while (!failed() && take_operator("~")) {
    parts.push_back(product());
  }
  return made(Kind::kConcat, std::move(parts));
}

Expression ExpressionParser::product() {
  Expression left = power();
  while (!failed() &&
         (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%"))) {
    std::string op = token().text;
    next();
    std::vector<Expression> parts;
    parts.push_back(std::move(left));
    parts.push_back(power());
    left = made(Kind::kBinary, std::move(parts), std::move(op));
  }
  return left;
}

Expression ExpressionParser::power() {
  Expression left = unary(true);
  while (!failed() && take_operator("**")) {
    std::vector<Expression> parts;
    parts.push_back(std::move(left));
    parts.push_back(unary(true));
    left = made(Kind::kBinary, std::move(parts), "**");
  }
  return left;
}

Expression ExpressionParser::unary(bool with_filters) {
  Expression value;
  if (is_operator("-") || is_operator("+")) {
    if (!enter()) {
      return {};
    }
    const Kind kind = is_operator("-") ? Kind::kNegate : Kind::kPlus;
    next();
    ++depth_;
    std::vector<Expression> parts;
    parts.push_back(unary(false));
    --depth_;
    value = made(kind, std::move(parts));
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  return with_filters ? filters_after(std::move(value), false) : value;
}

Expression ExpressionParser::primary() {
  switch (token().kind) {
    case Token::Kind::kName:
      return name_or_constant();
    case Token::Kind::kString:
      return string();
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return number();
    default:
      break;
  }
  if (is_operator("(")) {
    return in_parentheses();
  }
  if (is_operator("[")) {
    next();
    return sequence("]", Kind::kList);
  }
  if (is_operator("{")) {
    return mapping();
  }
  fail("expected an expression");
  return {};
}

Expression ExpressionParser::name_or_constant() {
  Expression expression = made(Kind::kConstant, {});
  std::string name = token().text;
  next();
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    expression.value = name == "true" || name == "True";
  } else if (name == "none" || name == "None") {
    expression.value = None{};
  } else {
    expression = made(Kind::kName, {}, std::move(name));
  }
  return expression;
}

Expression ExpressionParser::number() {
  Expression expression = made(Kind::kConstant, {});
  const std::string& text = token().text;
  const char* const end = text.data() + text.size();
  int64_t integer = 0;
  double real = 0;
  std::from_chars_result read{};
  if (token().kind == Token::Kind::kInteger) {
    read = std::from_chars(text.data(), end, integer);
    expression.value = integer;
  } else {
    read = std::from_chars(text.data(), end, real);
    expression.value = real;
  }
  if (read.ec != std::errc{} || read.ptr != end) {
    fail("a number passes 64 bits");
  }
  next();
  return expression;
}

Expression ExpressionParser::string() {
  std::string text;
  for (; token().kind == Token::Kind::kString; next()) {  // neighbours are one
    text += token().text;
  }
  Expression expression = made(Kind::kConstant, {});
  expression.value = constant(text);
  return expression;
}

// After the opening bracket, up to and with the closing one.
Expression ExpressionParser::sequence(std::string_view closing, Kind kind) {
  std::vector<Expression> parts;
  while (!failed() && !is_operator(closing)) {
    parts.push_back(expression());
    if (!is_operator(closing)) {
      expect_operator(",");
    }
  }
  expect_operator(closing);
  return made(kind, std::move(parts));
}

Expression ExpressionParser::in_parentheses() {
  next();
  if (take_operator(")")) {
    return made(Kind::kTuple, {});
  }
  Expression inside = expression_list();
  expect_operator(")");
  return inside;
}

Expression ExpressionParser::mapping() {
  next();
  std::vector<Expression> parts;
  while (!failed() && !is_operator("}")) {
    parts.push_back(expression());
    expect_operator(":");
    parts.push_back(expression());
    if (!is_operator("}")) {
      expect_operator(",");
    }
  }
  expect_operator("}");
  return made(Kind::kDict, std::move(parts));
}

Expression ExpressionParser::postfix(Expression subject) {
  while (!failed()) {
    if (is_operator(".") || is_operator("[")) {
      subject = subscript(std::move(subject));
    } else if (is_operator("(")) {
      subject = call(std::move(subject));
    } else {
      break;
    }
  }
  return subject;
}

Expression ExpressionParser::subscript(Expression subject) {
  std::vector<Expression> parts;
  if (take_operator(".")) {
    if (token().kind == Token::Kind::kInteger) {
      parts.push_back(std::move(subject));
      parts.push_back(number());
      return made(Kind::kItem, std::move(parts));
    }
    std::string name = expect_name("the name of an attribute");
    parts.push_back(std::move(subject));
    return made(Kind::kAttribute, std::move(parts), std::move(name));
  }
  next();
  Expression first = is_operator(":") ? Expression{} : expression();
  if (is_operator(":")) {
    return slice(std::move(subject), std::move(first));
  }
  expect_operator("]");
  parts.push_back(std::move(subject));
  parts.push_back(std::move(first));
  return made(Kind::kItem, std::move(parts));
}

Expression ExpressionParser::slice(Expression subject, Expression first) {
  std::vector<Expression> parts;
  parts.push_back(std::move(subject));
  parts.push_back(std::move(first));
  while (parts.size() < 4) {
    const bool more = take_operator(":") && !is_operator(":") && !is_operator("]");
    parts.push_back(more ? expression() : Expression{});
  }
  expect_operator("]");
  return made(Kind::kSlice, std::move(parts));
}

void ExpressionParser::arguments(Expression& of) {
  next();
  while (!failed() && !is_operator(")")) {
    if (is_operator("*") || is_operator("**")) {
      fail("arguments given by * and ** are not implemented");
    } else if (token().kind == Token::Kind::kName && is_operator("=", 1)) {
      std::string name = token().text;
      next();
      next();
      Expression value = expression();
      of.depth = std::max(of.depth, value.depth + 1);
      of.named.push_back({std::move(name), std::move(value)});
    } else {
      Expression value = expression();
      of.depth = std::max(of.depth, value.depth + 1);
      of.parts.push_back(std::move(value));
    }
    if (!is_operator(")")) {
      expect_operator(",");
    }
  }
  expect_operator(")");
  if (of.depth > kMaxDepth) {
    fail("expressions nest deeper than " + std::to_string(kMaxDepth));
  }
}

Expression ExpressionParser::call(Expression callee) {
  std::vector<Expression> parts;
  parts.push_back(std::move(callee));
  Expression call = made(Kind::kCall, std::move(parts));
  arguments(call);
  return call;
}

Expression ExpressionParser::filters_after(Expression subject, bool first_without_pipe) {
  if (first_without_pipe) {
    subject = filter(std::move(subject));
  }
  while (!failed()) {
    if (take_operator("|")) {
      subject = filter(std::move(subject));
    } else if (is_name("is")) {
      subject = test(std::move(subject));
    } else if (is_operator("(")) {
      subject = call(std::move(subject));
    } else {
      break;
    }
  }
  return subject;
}

Expression ExpressionParser::filter(Expression subject) {
  std::vector<Expression> parts;
  parts.push_back(std::move(subject));
  const std::string name = expect_name("the name of a filter");
  Expression filtered = made(Kind::kFilter, std::move(parts), name);
  filtered.filter = find_filter(name);
  if (filtered.filter == nullptr) {
    fail("the filter \"" + name.substr(0, 40) + "\" is not implemented");
  }
  if (is_operator("(")) {
    arguments(filtered);
  }
  return filtered;
}

Expression ExpressionParser::test(Expression subject) {
  next();
  const bool negated = take_name("not");
  std::vector<Expression> parts;
  parts.push_back(std::move(subject));
  const std::string name = expect_name("the name of a test");
  Expression tested = made(Kind::kTest, std::move(parts), name);
  tested.test = find_test(name);
  if (tested.test == nullptr) {
    fail("the test \"" + name.substr(0, 40) + "\" is not implemented");
  }
  const Token::Kind kind = token().kind;
  const bool word = kind == Token::Kind::kName;
  const bool goes_on = word && (is_name("else") || is_name("or") || is_name("and") ||
                                is_name("if") || is_name("is") || is_name("in") || is_name("not"));
  if (is_operator("(")) {
    arguments(tested);
  } else if ((word && !goes_on) || kind == Token::Kind::kString || kind == Token::Kind::kInteger ||
             kind == Token::Kind::kFloat || is_operator("[") || is_operator("{")) {
    Expression argument = postfix(primary());
    tested.depth = std::max(tested.depth, argument.depth + 1);
    tested.parts.push_back(std::move(argument));
  }
  if (!negated) {
    return tested;
  }
  std::vector<Expression> whole;
  whole.push_back(std::move(tested));
  return made(Kind::kNot, std::move(whole));
}

}  // namespace penstock::llama::jinja
