#include "worker/engines/llama/template/expression_parser.h"

#include <algorithm>
#include <charconv>

#include "worker/engines/llama/template/builtins.h"

namespace penstock::llama::jinja {
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
  std::string name = token().text;
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

}  // namespace penstock::llama::jinja
