// ExpressionParser: what operators stand between: names, literals, calls, filters and tests.
#include <algorithm>
#include <charconv>

#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/expression_parser.h"

namespace penstock::llama::jinja {

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
