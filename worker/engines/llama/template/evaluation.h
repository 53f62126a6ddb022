// Runs a parsed template: statements write text, expressions have values.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "worker/engines/llama/template/context.h"
#include "worker/engines/llama/template/syntax.h"

namespace penstock::llama::jinja {

// Names of one scope: the template's, a loop's turn's, a macro's. A name is looked for outwards;
// what is set stays in the innermost.
struct Frame {
  Frame* around = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;

  void set(std::string_view name, const Value& value);
  const Value* find(std::string_view name) const;
};

class Evaluation {
 public:
  explicit Evaluation(Context& context) : context_(context) {}

  // The template's outermost scope, with what it is given.
  Frame& globals() { return globals_; }
  // What is written goes to `out`; nothing counts once the context has failed.
  void run(const std::vector<Statement>& statements, Text& out);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using Kind = Expression::Kind;

  Flow run(const std::vector<Statement>& statements, Frame& frame, Text& out);
  Flow run(const Statement& statement, Frame& frame, Text& out);
  Flow run_if(const Statement& statement, Frame& frame, Text& out);
  Flow run_for(const Statement& statement, Frame& frame, Text& out);
  Flow run_scope(const Statement& statement, Frame& frame, Text& out);
  void write(const Value& value, Text& out);
  void assign(const std::vector<Target>& targets, const Value& value, Frame& frame);
  void assign(const Target& target, const Value& value, Frame& frame);
  Value text_through(const Statement& statement, Frame& frame);
  Frame& frame_in(Frame& around);

  Value value_of(const Expression& expression, Frame& frame);
  Value value_within(const Expression& expression, Frame& frame);
  Value name(const Expression& expression, Frame& frame);
  Value items(const Expression& expression, Frame& frame);
  Value mapping(const Expression& expression, Frame& frame);
  Value sign(const Expression& expression, Frame& frame);
  Value compared(const Expression& expression, Frame& frame);
  Value concatenated(const Expression& expression, Frame& frame);
  Value condition(const Expression& expression, Frame& frame);
  Value slice(const Expression& expression, Frame& frame);
  Value call(const Expression& expression, Frame& frame);
  Value call_macro(const Callable& callable, const Arguments& arguments);
  Arguments arguments_of(const Expression& expression, Frame& frame);

  Context& context_;
  std::deque<Frame> frames_;
  Frame globals_;
  Value block_text_;
};

}  // namespace penstock::llama::jinja
