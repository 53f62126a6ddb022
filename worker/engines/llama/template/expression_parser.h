// Expressions of a template, by Jinja's precedence. The base of the statements' parser (parser.cc).
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "worker/engines/llama/template/lexer.h"
#include "worker/engines/llama/template/syntax.h"

namespace penstock::llama::jinja {

class ExpressionParser {
 public:
  static constexpr int kMaxDepth = 100;

  ExpressionParser(std::vector<Token> tokens, Heap& heap)
      : tokens_(std::move(tokens)), heap_(heap) {}

  // The first thing that was wrong; empty if nothing was.
  const std::string& error() const { return error_; }

 protected:
  using Kind = Expression::Kind;

  const Token& token(size_t ahead = 0) const;
  void next() { at_ += at_ + 1 < tokens_.size() ? 1 : 0; }
  bool is_operator(std::string_view text, size_t ahead = 0) const;
  bool is_name(std::string_view text, size_t ahead = 0) const;
  // Takes the token if it is that one.
  bool take_operator(std::string_view text);
  bool take_name(std::string_view text);
  void expect_operator(std::string_view text);
  std::string expect_name(const char* what);
  void fail(const std::string& what);
  bool failed() const { return !error_.empty(); }

  Expression expression();       // with a condition, without commas
  Expression expression_list();  // with commas: a tuple
  Expression disjunction();      // no condition: what a loop goes over
  // The filters that follow, applied to `subject`, the first without a pipe.
  Expression filters_after(Expression subject, bool first_without_pipe);
  Value constant(std::string_view text);

 private:
  Expression conjunction();
  Expression negation();
  Expression comparison();
  Expression sum();
  Expression concatenation();
  Expression product();
  Expression power();
  Expression unary(bool with_filters);
  Expression primary();
  Expression name_or_constant();
  Expression number();
  Expression string();
  Expression sequence(std::string_view closing, Kind kind);
  Expression in_parentheses();
  Expression mapping();
  Expression postfix(Expression subject);
  Expression subscript(Expression subject);
  Expression slice(Expression subject, Expression first);
  Expression call(Expression callee);
  Expression filter(Expression subject);
  Expression test(Expression subject);
  void arguments(Expression& of);
  Expression made(Kind kind, std::vector<Expression> parts, std::string name = "");
  bool enter();

  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  Heap& heap_;
  std::string error_;
};

}  // namespace penstock::llama::jinja
