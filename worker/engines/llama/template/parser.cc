#include "worker/engines/llama/template/parser.h"

#include <algorithm>

#include "worker/engines/llama/template/expression_parser.h"

namespace penstock::llama::jinja {
namespace {

constexpr int kMaxBlocks = 50;  // within one another

using Body = std::vector<Statement>;

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() {
    Body body = statements({});
    if (!failed() && token().kind != Token::Kind::kEnd) {
      fail("this ends no block that is open");
    }
    return body;
  }

 private:
  using Kind = Statement::Kind;

  Statement begun(Kind kind) const {
    Statement statement;
    statement.kind = kind;
    statement.line = token().line;
    return statement;
  }

  // Up to a tag that begins with one of `ends`, which is left to the caller behind its {%.
  Body statements(std::initializer_list<std::string_view> ends) {
    Body body;
    if (++blocks_ > kMaxBlocks) {
      fail("blocks nest deeper than " + std::to_string(kMaxBlocks));
    }
    while (!failed() && token().kind != Token::Kind::kEnd) {
      if (token().kind == Token::Kind::kData) {
        Statement data = begun(Kind::kData);
        data.value = constant(token().text);
        next();
        body.push_back(std::move(data));
      } else if (token().kind == Token::Kind::kPrint) {
        body.push_back(print());
      } else if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return is_name(end, 1); })) {
        next();
        break;
      } else {
        body.push_back(block());
      }
    }
    --blocks_;
    return body;
  }

  void end_tag() {
    if (token().kind != Token::Kind::kBlockEnd) {
      fail("expected %}");
    }
    next();
  }

  // The body of a block and the tag that ends it.
  Body body_until(std::string_view end) {
    end_tag();
    Body body = statements({end});
    if (!take_name(end)) {
      fail("expected {% " + std::string(end) + " %}");
    }
    end_tag();
    return body;
  }

  Statement print() {
    Statement statement = begun(Kind::kPrint);
    next();
    statement.expressions.push_back(expression_list());
    if (token().kind != Token::Kind::kPrintEnd) {
      fail("expected }}");
    }
    next();
    return statement;
  }

  Statement block() {
    next();  // {%
    const std::string name = token().text;
    if (take_name("if")) {
      return if_block();
    }
    if (take_name("for")) {
      return for_block();
    }
    if (take_name("set")) {
      return set_block();
    }
    if (take_name("macro")) {
      return macro_block();
    }
    if (take_name("filter")) {
      return filter_block();
    }
    if (take_name("with")) {
      return with_block();
    }
    if (take_name("generation")) {
      Statement statement = begun(Kind::kScope);
      statement.bodies.push_back(body_until("endgeneration"));
      return statement;
    }
    if (is_name("break") || is_name("continue")) {
      return loop_control();
    }
    fail("the tag \"" + name.substr(0, 40) + "\" is not implemented, or not open here");
    return {};
  }

  Statement loop_control() {
    Statement statement = begun(is_name("break") ? Kind::kBreak : Kind::kContinue);
    if (loops_ == 0) {
      fail("break and continue belong into a loop");
    }
    next();
    end_tag();
    return statement;
  }

  Statement if_block() {
    Statement statement = begun(Kind::kIf);
    do {
      statement.expressions.push_back(expression_list());
      end_tag();
      statement.bodies.push_back(statements({"elif", "else", "endif"}));
    } while (!failed() && take_name("elif"));
    if (take_name("else")) {
      end_tag();
      statement.bodies.push_back(statements({"endif"}));
    }
    if (!take_name("endif")) {
      fail("expected {% endif %}");
    }
    end_tag();
    return statement;
  }

  Statement for_block() {
    Statement statement = begun(Kind::kFor);
    statement.targets = targets();
    if (!take_name("in")) {
      fail("expected \"in\"");
    }
    statement.expressions.push_back(disjunction());
    statement.expressions.push_back(take_name("if") ? expression() : Expression{});
    if (is_name("recursive")) {
      fail("recursive loops are not implemented");
    }
    end_tag();
    ++loops_;
    statement.bodies.push_back(statements({"else", "endfor"}));
    --loops_;
    if (take_name("else")) {
      end_tag();
      statement.bodies.push_back(statements({"endfor"}));
    }
    if (!take_name("endfor")) {
      fail("expected {% endfor %}");
    }
    end_tag();
    return statement;
  }

  std::vector<Target> targets() {
    std::vector<Target> targets;
    const bool parentheses = take_operator("(");
    do {
      Target target{expect_name("a name"), ""};
      if (take_operator(".")) {
        target.member = expect_name("the name of a namespace's member");
      }
      targets.push_back(std::move(target));
    } while (!failed() && take_operator(",") && token().kind == Token::Kind::kName);
    if (parentheses) {
      expect_operator(")");
    }
    return targets;
  }

  Statement set_block() {
    Statement statement = begun(Kind::kSet);
    statement.targets = targets();
    if (take_operator("=")) {
      statement.expressions.push_back(expression_list());
      end_tag();
      return statement;
    }
    statement.kind = Kind::kSetBlock;
    Expression text;
    text.kind = Expression::Kind::kBlockText;
    statement.expressions.push_back(filters_after(std::move(text), false));
    if (statement.targets.size() != 1) {
      fail("expected \"=\", or one name for the block");
    }
    statement.bodies.push_back(without_loops("endset"));
    return statement;
  }

  Statement filter_block() {
    Statement statement = begun(Kind::kFilter);
    Expression text;
    text.kind = Expression::Kind::kBlockText;
    statement.expressions.push_back(filters_after(std::move(text), true));
    statement.bodies.push_back(without_loops("endfilter"));
    return statement;
  }

  Statement macro_block() {
    Statement statement = begun(Kind::kMacro);
    statement.text = expect_name("the macro's name");
    expect_operator("(");
    while (!failed() && !is_operator(")")) {
      statement.targets.push_back({expect_name("a parameter"), ""});
      statement.expressions.push_back(take_operator("=") ? expression() : Expression{});
      if (!is_operator(")")) {
        expect_operator(",");
      }
    }
    expect_operator(")");
    statement.bodies.push_back(without_loops("endmacro"));
    return statement;
  }

  Statement with_block() {
    Statement statement = begun(Kind::kScope);
    while (!failed() && token().kind == Token::Kind::kName) {
      statement.targets.push_back({expect_name("a name"), ""});
      expect_operator("=");
      statement.expressions.push_back(expression());
      if (!take_operator(",")) {
        break;
      }
    }
    statement.bodies.push_back(body_until("endwith"));
    return statement;
  }

  // A block whose text is kept: what is around it cannot be left from within.
  Body without_loops(std::string_view end) {
    const int around = std::exchange(loops_, 0);
    Body body = body_until(end);
    loops_ = around;
    return body;
  }

  int blocks_ = 0;
  int loops_ = 0;
};

}  // namespace

Result<std::vector<Statement>> parse(std::string_view source, Heap& heap) {
  auto tokens = tokens_of(source);
  if (!tokens) {
    return tokens.error();
  }
  Parser parser(std::move(*tokens), heap);
  Body body = parser.run();
  if (!parser.error().empty()) {
    return Error{parser.error()};
  }
  return body;
}

}  // namespace penstock::llama::jinja
