#include "worker/engines/llama/template/evaluation.h"

#include <algorithm>

#include "worker/engines/llama/template/builtins.h"

namespace penstock::llama::jinja {
namespace {

// A level of nesting, counted as long as it stands.
class Level {
 public:
  explicit Level(Context& context) : context_(context), fine_(context.enter()) {}
  ~Level() { context_.leave(); }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  explicit operator bool() const { return fine_; }

 private:
  Context& context_;
  const bool fine_;
};

}  // namespace

void Frame::set(std::string_view name, const Value& value) {
  for (auto& [known, old] : names) {
    if (known == name) {
      old = value;
      return;
    }
  }
  names.emplace_back(name, value);
}

const Value* Frame::find(std::string_view name) const {
  for (const Frame* frame = this; frame != nullptr; frame = frame->around) {
    for (const auto& [known, value] : frame->names) {
      if (known == name) {
        return &value;
      }
    }
  }
  return nullptr;
}

// ---- statements --------------------------------------------------------------------------------

void Evaluation::run(const std::vector<Statement>& statements, Text& out) {
  run(statements, globals_, out);
}

Frame& Evaluation::frame_in(Frame& around) {
  context_.spend(sizeof(Frame) + 2 * sizeof(std::pair<std::string_view, Value>));
  return frames_.emplace_back(Frame{&around, {}});
}

Evaluation::Flow Evaluation::run(const std::vector<Statement>& statements, Frame& frame,
                                 Text& out) {
  const Level level(context_);
  for (const Statement& statement : statements) {
    if (!level || !context_.step()) {
      break;
    }
    const Flow flow = run(statement, frame, out);
    if (flow != Flow::kOn) {
      return flow;
    }
  }
  return Flow::kOn;
}

Evaluation::Flow Evaluation::run(const Statement& statement, Frame& frame, Text& out) {
  using Is = Statement::Kind;
  context_.at_line(statement.line);
  switch (statement.kind) {
    case Is::kData:
      write(statement.value, out);
      break;
    case Is::kPrint:
      write(value_of(statement.expressions[0], frame), out);
      break;
    case Is::kIf:
      return run_if(statement, frame, out);
    case Is::kFor:
      return run_for(statement, frame, out);
    case Is::kSet:
      assign(statement.targets, value_of(statement.expressions[0], frame), frame);
      break;
    case Is::kSetBlock:
      assign(statement.targets, text_through(statement, frame), frame);
      break;
    case Is::kFilter:
      write(text_through(statement, frame), out);
      break;
    case Is::kMacro:
      context_.spend(sizeof(Callable));
      frame.set(statement.text,
                context_.heap().add(
                    Callable{.name = statement.text, .macro = &statement, .closure = &frame}));
      break;
    case Is::kScope:
      return run_scope(statement, frame, out);
    case Is::kBreak:
      return Flow::kBreak;
    case Is::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

void Evaluation::write(const Value& value, Text& out) {
  if (context_.failed()) {
    return;
  }
  const size_t before = out.size();
  print(value, out);
  context_.spend(static_cast<int64_t>(out.size() - before));
}

Evaluation::Flow Evaluation::run_if(const Statement& statement, Frame& frame, Text& out) {
  const size_t tests = statement.expressions.size();
  for (size_t i = 0; i < tests; ++i) {
    if (truth(value_of(statement.expressions[i], frame))) {
      return run(statement.bodies[i], frame, out);
    }
  }
  return statement.bodies.size() > tests ? run(statement.bodies[tests], frame, out) : Flow::kOn;
}

Evaluation::Flow Evaluation::run_for(const Statement& statement, Frame& frame, Text& out) {
  std::vector<Value> items;
  if (!context_.items_of(value_of(statement.expressions[0], frame), items)) {
    return Flow::kOn;
  }
  const Expression& filter = statement.expressions[1];
  if (filter.kind != Kind::kAbsent) {
    Frame& trial = frame_in(frame);
    std::erase_if(items, [&](const Value& item) {
      assign(statement.targets, item, trial);
      return !truth(value_of(filter, trial));
    });
  }
  // A name for them that lives as long as the loop's own, which a namespace may keep.
  const Value kept = context_.list(std::move(items));
  if (context_.failed()) {
    return Flow::kOn;
  }
  Loop& loop = *context_.heap().add(Loop{.items = &as<List>(kept)->items});
  for (; loop.index0 < static_cast<int64_t>(loop.items->size()) && context_.step(); ++loop.index0) {
    Frame& turn = frame_in(frame);
    turn.set("loop", &loop);
    assign(statement.targets, (*loop.items)[static_cast<size_t>(loop.index0)], turn);
    if (run(statement.bodies[0], turn, out) == Flow::kBreak) {
      break;
    }
  }
  const bool otherwise = loop.items->empty() && statement.bodies.size() > 1;
  return otherwise ? run(statement.bodies[1], frame_in(frame), out) : Flow::kOn;
}

Evaluation::Flow Evaluation::run_scope(const Statement& statement, Frame& frame, Text& out) {
  Frame& inner = frame_in(frame);
  for (size_t i = 0; i < statement.targets.size(); ++i) {
    inner.set(statement.targets[i].name, value_of(statement.expressions[i], frame));
  }
  return run(statement.bodies[0], inner, out);
}

Value Evaluation::text_through(const Statement& statement, Frame& frame) {
  Text text;
  run(statement.bodies[0], frame_in(frame), text);
  const Value around = std::exchange(block_text_, context_.text(std::move(text)));
  const Value result = value_of(statement.expressions[0], frame);
  block_text_ = around;
  return result;
}

void Evaluation::assign(const std::vector<Target>& targets, const Value& value, Frame& frame) {
  if (targets.size() == 1) {
    return assign(targets[0], value, frame);
  }
  std::vector<Value> items;
  if (!context_.items_of(value, items)) {
    return;
  }
  if (items.size() != targets.size()) {
    context_.fail("there are " + std::to_string(targets.size()) + " names for " +
                  std::to_string(items.size()) + " values");
    return;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    assign(targets[i], items[i], frame);
  }
}

void Evaluation::assign(const Target& target, const Value& value, Frame& frame) {
  if (context_.failed()) {
    return;
  }
  if (target.member.empty()) {
    return frame.set(target.name, value);
  }
  const Value* found = frame.find(target.name);
  auto* const* space = found == nullptr ? nullptr : std::get_if<Namespace*>(found);
  if (space == nullptr) {
    context_.fail("'" + target.name + "' is no namespace");
    return;
  }
  (*space)->members.set(context_.text(target.member), value);
}

// ---- expressions -------------------------------------------------------------------------------

Value Evaluation::value_of(const Expression& expression, Frame& frame) {
  const Level level(context_);
  return level ? value_within(expression, frame) : Value(Undefined{});
}

Value Evaluation::value_within(const Expression& expression, Frame& frame) {
  const auto part = [&](size_t i) { return value_of(expression.parts[i], frame); };
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.value;
    case Kind::kName:
      return name(expression, frame);
    case Kind::kList:
    case Kind::kTuple:
      return items(expression, frame);
    case Kind::kDict:
      return mapping(expression, frame);
    case Kind::kNot:
      return !truth(part(0));
    case Kind::kNegate:
    case Kind::kPlus:
      return sign(expression, frame);
    case Kind::kBinary: {
      const Value left = part(0);
      return binary(context_, expression.name, left, part(1));
    }
    case Kind::kConcat:
      return concatenated(expression, frame);
    case Kind::kAnd:
    case Kind::kOr: {
      const Value left = part(0);
      return truth(left) == (expression.kind == Kind::kOr) ? left : part(1);
    }
    case Kind::kCompare:
      return compared(expression, frame);
    case Kind::kCondition:
      return condition(expression, frame);
    case Kind::kAttribute:
      return attribute_of(context_, part(0), expression.name);
    case Kind::kItem: {
      const Value subject = part(0);
      return item_of(context_, subject, part(1));
    }
    case Kind::kSlice:
      return slice(expression, frame);
    case Kind::kCall:
      return call(expression, frame);
    case Kind::kFilter: {
      const Value subject = part(0);
      const Arguments arguments = arguments_of(expression, frame);
      return context_.failed() ? Value(Undefined{})
                               : expression.filter->apply(context_, subject, arguments);
    }
    case Kind::kTest: {
      const Value subject = part(0);
      const Arguments arguments = arguments_of(expression, frame);
      return !context_.failed() && expression.test->holds(context_, subject, arguments);
    }
    case Kind::kBlockText:
      return block_text_;
    case Kind::kAbsent:
      break;
  }
  return Undefined{"nothing"};
}

Value Evaluation::name(const Expression& expression, Frame& frame) {
  const Value* found = frame.find(expression.name);
  return found != nullptr ? *found : global_of(context_, expression.name);
}

Value Evaluation::items(const Expression& expression, Frame& frame) {
  std::vector<Value> values;
  for (const Expression& part : expression.parts) {
    values.push_back(value_of(part, frame));
  }
  return context_.list(std::move(values),
                       expression.kind == Kind::kTuple ? List::Shape::kTuple : List::Shape::kList);
}

Value Evaluation::mapping(const Expression& expression, Frame& frame) {
  Dict dict;
  for (size_t i = 0; i + 1 < expression.parts.size(); i += 2) {
    const Value key = value_of(expression.parts[i], frame);
    dict.set(key, value_of(expression.parts[i + 1], frame));
  }
  return context_.dict(std::move(dict));
}

Value Evaluation::sign(const Expression& expression, Frame& frame) {
  const Value value = value_of(expression.parts[0], frame);
  return binary(context_, expression.kind == Kind::kNegate ? "-" : "+", int64_t{0}, value);
}

Value Evaluation::compared(const Expression& expression, Frame& frame) {
  Value left = value_of(expression.parts[0], frame);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    const Value right = value_of(expression.parts[i + 1], frame);
    if (context_.failed() || !compare(context_, expression.operators[i], left, right)) {
      return false;
    }
    left = right;
  }
  return true;
}

Value Evaluation::concatenated(const Expression& expression, Frame& frame) {
  Text joined;
  for (const Expression& part : expression.parts) {
    write(value_of(part, frame), joined);
  }
  return context_.text(std::move(joined));
}

Value Evaluation::condition(const Expression& expression, Frame& frame) {
  const bool holds = truth(value_of(expression.parts[1], frame));
  return value_of(expression.parts[holds ? 0 : 2], frame);
}

Value Evaluation::slice(const Expression& expression, Frame& frame) {
  const Value subject = value_of(expression.parts[0], frame);
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    const Expression& bound = expression.parts[i + 1];
    bounds[i] = bound.kind == Kind::kAbsent ? Value(None{}) : value_of(bound, frame);
  }
  return context_.failed() ? Value(Undefined{}) : slice_of(context_, subject, bounds);
}

Arguments Evaluation::arguments_of(const Expression& expression, Frame& frame) {
  Arguments arguments;
  for (size_t i = 1; i < expression.parts.size(); ++i) {
    arguments.places.push_back(value_of(expression.parts[i], frame));
  }
  for (const auto& [name, value] : expression.named) {
    arguments.named.emplace_back(name, value_of(value, frame));
  }
  return arguments;
}

Value Evaluation::call(const Expression& expression, Frame& frame) {
  const Value callee = value_of(expression.parts[0], frame);
  const Arguments arguments = arguments_of(expression, frame);
  const Callable* callable = as<Callable>(callee);
  if (context_.failed()) {
    return Undefined{};
  }
  if (const auto* undefined = std::get_if<Undefined>(&callee)) {
    return context_.fail("'" + std::string(undefined->name) + "' is undefined");
  }
  if (callable == nullptr) {
    return context_.fail(std::string(kind_of(callee)) + " cannot be called");
  }
  return callable->macro != nullptr ? call_macro(*callable, arguments)
                                    : callable->native(context_, callable->self, arguments);
}

Value Evaluation::call_macro(const Callable& callable, const Arguments& arguments) {
  const Statement& macro = *callable.macro;
  const int line = context_.line();
  Frame& frame = frame_in(*callable.closure);
  if (arguments.places.size() > macro.targets.size()) {
    return context_.fail("the macro " + macro.text + " takes " +
                         std::to_string(macro.targets.size()) + " arguments");
  }
  for (size_t i = 0; i < macro.targets.size(); ++i) {
    const std::string& name = macro.targets[i].name;
    const Value* given = arguments.find(i, name);
    const bool absent = macro.expressions[i].kind == Kind::kAbsent;
    frame.set(name, given != nullptr ? *given
                    : absent         ? Value(Undefined{name})
                                     : value_of(macro.expressions[i], frame));
  }
  Text out;
  run(macro.bodies[0], frame, out);
  context_.at_line(line);
  return context_.text(std::move(out));
}

}  // namespace penstock::llama::jinja
