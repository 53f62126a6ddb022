// What a rendering may use up, and the first thing that went wrong in it.
//
// Every function of the evaluation that can fail calls fail() and gives back an undefined value;
// who called it goes on for a moment with that, since everything it could do from there is counted
// and step() says false from then on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "worker/engines/llama/template/value.h"

namespace penstock::llama::jinja {

// Bounds of one rendering.
struct Limits {
  int64_t steps = 2'000'000;  // statements and expressions evaluated, items looked at
  int64_t bytes = 128 << 20;  // of all texts and lists made on the way, the result included
  int depth = 300;            // of expressions, statements and macros within one another
};

struct Trouble {
  enum class Kind {
    kRaised,  // the template called raise_exception: what it says is meant for the caller
    kWrong,   // the template cannot go on with this input
    kTooMuch  // a limit was met
  };
  Kind kind = Kind::kWrong;
  std::string message;
  int line = 0;
};

class Context {
 public:
  Context(const Limits& limits, int64_t now_unix_s) : limits_(limits), now_unix_s_(now_unix_s) {}

  // The first trouble counts.
  Value fail(std::string message, Trouble::Kind kind = Trouble::Kind::kWrong);
  bool failed() const { return trouble_.has_value(); }
  const Trouble& trouble() const { return *trouble_; }

  // Counts work; false once something has failed.
  bool step(int64_t steps = 1);
  bool spend(int64_t bytes);

  // One level further down, until the end of the scope. False if that is too deep.
  bool enter();
  void leave() { --depth_; }

  Value text(Text text);
  Value text(std::string_view bytes) { return this->text(Text(bytes, Hand::kTemplate)); }
  Value list(std::vector<Value> items, List::Shape shape = List::Shape::kList);
  Value dict(Dict dict);
  Heap& heap() { return heap_; }

  // What a for loop, `in` or `join` goes over: items, keys or characters. False, and failed, if
  // there is nothing to go over.
  bool items_of(const Value& value, std::vector<Value>& items);

  int64_t now_unix_s() const { return now_unix_s_; }
  void at_line(int line) { line_ = line; }
  int line() const { return line_; }

 private:
  const Limits limits_;
  const int64_t now_unix_s_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
  int depth_ = 0;
  int line_ = 0;
  Heap heap_;
  std::optional<Trouble> trouble_;
};

}  // namespace penstock::llama::jinja
