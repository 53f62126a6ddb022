// What a chat template computes with: the values of Python that Jinja templates see.
//
// A Value is small and copied freely. What it points to (texts, lists, dictionaries ...) belongs to
// a Heap and lives as long as that; nothing of it changes once it is made, but for a namespace's
// members and a loop's place.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "worker/engines/llama/text.h"

namespace penstock::llama::jinja {

class Context;
struct Arguments;
struct Statement;
struct Frame;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;

struct None {};
// A name that stands for nothing. It prints as nothing; to go on from it is an error.
struct Undefined {
  std::string_view name;
};

using Value = std::variant<Undefined, None, bool, int64_t, double, const Text*, const List*,
                           const Dict*, Namespace*, Loop*, const Callable*>;

struct List {
  // A generator is true even when empty, and has neither length nor places.
  enum class Shape : uint8_t { kList, kTuple, kGenerator };
  std::vector<Value> items;
  Shape shape = Shape::kList;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  const Value* find(const Value& key) const;
  void set(const Value& key, const Value& value);
};

struct Namespace {
  Dict members;
};

// The `loop` of a for statement.
struct Loop {
  const std::vector<Value>* items = nullptr;
  int64_t index0 = 0;
  bool has_changed_value = false;
  std::vector<Value> changed_value = {};  // what loop.changed() was given last
};

struct Callable {
  using Native = Value (*)(Context&, const Value& self, const Arguments&);
  std::string_view name;
  Native native = nullptr;  // or a macro:
  Value self = {};
  const Statement* macro = nullptr;
  Frame* closure = nullptr;
};

struct Arguments {
  std::vector<Value> places;
  std::vector<std::pair<std::string_view, Value>> named;

  // The argument at `place` or called `name`; null if neither is there.
  const Value* find(size_t place, std::string_view name) const;
};

// Owns what values point to.
class Heap {
 public:
  const Text* add(Text text) { return &texts_.emplace_back(std::move(text)); }
  const List* add(List list) { return &lists_.emplace_back(std::move(list)); }
  const Dict* add(Dict dict) { return &dicts_.emplace_back(std::move(dict)); }
  Namespace* add(Namespace space) { return &namespaces_.emplace_back(std::move(space)); }
  Loop* add(Loop loop) { return &loops_.emplace_back(std::move(loop)); }
  const Callable* add(Callable callable) { return &callables_.emplace_back(callable); }

 private:
  std::deque<Text> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Callable> callables_;
};

template <typename T>
const T* as(const Value& value) {
  const auto* pointer = std::get_if<const T*>(&value);
  return pointer == nullptr ? nullptr : *pointer;
}
inline bool is_undefined(const Value& value) { return std::holds_alternative<Undefined>(value); }
inline bool is_none(const Value& value) { return std::holds_alternative<None>(value); }
// A text's bytes; empty for anything else.
std::string_view text_of(const Value& value);

// Integers and booleans.
bool is_integer(const Value& value, int64_t& number);
// And floats.
bool is_number(const Value& value, double& number);

bool truth(const Value& value);
bool equal(const Value& a, const Value& b);
// Below 0, 0, above 0 as a is before, at, behind b. False if they have no order.
bool order(const Value& a, const Value& b, int& result);

// "a string", "a list" ...
const char* kind_of(const Value& value);

// Prints a value as Python's str() does, or as repr() does: with quotes around a text. What nests
// deeper than `depth` is "...".
constexpr int kPrintDepth = 32;
void print(const Value& value, Text& out);
void represent(const Value& value, Text& out, int depth = kPrintDepth);
std::string represent_float(double number);

// Prints a value as json.dumps() does, with non-ASCII characters as they are. `indent` below 0: on
// one line. False for what JSON cannot say, and for what nests too deeply.
bool to_json(const Value& value, int indent, bool sort_keys, Text& out, int depth = 0);

}  // namespace penstock::llama::jinja
