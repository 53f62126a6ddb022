// A parsed template: statements, and the expressions in them.
#pragma once

#include <string>
#include <vector>

#include "worker/engines/llama/template/value.h"

namespace penstock::llama::jinja {

struct Filter;
struct Test;

struct NamedExpression;

struct Expression {
  enum class Kind {
    kConstant,   // value
    kName,       // name
    kList,       // parts
    kTuple,      // parts
    kDict,       // parts: key, value, key, value ...
    kNot,        // parts[0]
    kNegate,     // parts[0]
    kPlus,       // parts[0]
    kBinary,     // parts[0] name parts[1]: + - * / // % **
    kConcat,     // parts, ~ between them
    kAnd,        // parts[0] and parts[1]
    kOr,         // parts[0] or parts[1]
    kCompare,    // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    kCondition,  // parts[0] if parts[1] else parts[2], which may be absent
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]]; absent ones are kAbsent
    kCall,       // parts[0](the other parts, named)
    kFilter,     // parts[0] | filter(the other parts, named)
    kTest,       // parts[0] is test(the other parts, named)
    kBlockText,  // the text of the block that the filter chain stands at
    kAbsent,
  };
  Kind kind = Kind::kAbsent;
  Value value;
  std::string name;
  std::vector<std::string> operators;
  std::vector<Expression> parts;
  std::vector<NamedExpression> named;
  const Filter* filter = nullptr;
  const Test* test = nullptr;
  int depth = 1;  // of nesting; bounds what walks it
};

struct NamedExpression {
  std::string name;
  Expression value;
};

// What is assigned to: a name, or a member of a namespace.
struct Target {
  std::string name;
  std::string member;  // or empty
};

struct Statement {
  enum class Kind {
    kData,      // text
    kPrint,     // expressions[0]
    kIf,        // expressions[i] decides on bodies[i]; one body more is the else
    kFor,       // targets in expressions[0], if expressions[1]; bodies[0], or if none bodies[1]
    kSet,       // targets = expressions[0]
    kSetBlock,  // targets[0] = bodies[0], through the filters of expressions[0]
    kFilter,    // bodies[0] through the filters of expressions[0]
    kMacro,     // text is its name, targets its parameters, expressions their defaults or kAbsent
    kScope,     // targets[i] = expressions[i] in bodies[0]: with; without targets: generation
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kData;
  int line = 1;
  std::string text;
  Value value;  // kData: the same, for printing
  std::vector<Target> targets;
  std::vector<Expression> expressions;
  std::vector<std::vector<Statement>> bodies;
};

}  // namespace penstock::llama::jinja
