// A chat template in the language of Jinja, as Hugging Face transformers runs them: the form in
// which a model was shown conversations.
//
// All of the language that such templates use is here: loops with `loop`, conditions, set (blocks
// too), namespaces, macros, filter and with blocks, raw, break and continue, {% generation %}, the
// operators, slices, filters, tests and methods of builtins.h. What is not (include, extends,
// call, recursive loops) is refused by name when the template is parsed. A template touches nothing
// but what it is given: no files, no other program, no state that outlives a rendering; and what a
// rendering may use up is bounded (context.h).
//
// It renders to a Text (text.h): of each byte it is known whether the template wrote it or the
// caller, through every operator, filter and method.
//
// Against Python's: letters outside ASCII have no case here, and integers end at 64 bits.
//
// Source: Jinja 3.1 documentation; transformers, chat_template_utils.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/template/context.h"

namespace penstock::llama::jinja {

class Template {
 public:
  // An Error says the line and what is wrong or not implemented.
  static Result<Template> parse(std::string_view source);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // `given` makes the values of the names that the template finds, on the heap that it is passed.
  using Given = std::function<std::vector<std::pair<std::string_view, Value>>(Heap&)>;
  // `now_unix_s` is what strftime_now tells. Const, and any number of threads may.
  std::variant<Text, Trouble> render(const Given& given, int64_t now_unix_s,
                                     const Limits& limits = {}) const;

 private:
  struct Parsed;
  explicit Template(std::unique_ptr<Parsed> parsed);
  std::unique_ptr<Parsed> parsed_;
};

}  // namespace penstock::llama::jinja
