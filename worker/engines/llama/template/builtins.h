// The filters, tests, methods and global functions that templates call by name.
//
// Source: Jinja 3.1, "List of Builtin Filters", "List of Builtin Tests", "List of Global
// Functions"; Python 3, "Text Sequence Type"; Hugging Face transformers for tojson,
// raise_exception and strftime_now.
#pragma once

#include <string_view>

#include "worker/engines/llama/template/context.h"

namespace penstock::llama::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(Context&, const Value& subject, const Arguments&);
};

struct Test {
  std::string_view name;
  bool (*holds)(Context&, const Value& subject, const Arguments&);
};

// Null if there is none of that name.
const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);

// The method of a text, list or mapping, bound to it; undefined if it has none of that name.
Value method_of(Context& context, const Value& subject, std::string_view name);

// range, namespace ...; undefined if there is none of that name.
Value global_of(Context& context, std::string_view name);

// subject.name, and subject[key]: undefined if there is none.
Value attribute_of(Context& context, const Value& subject, std::string_view name);
Value item_of(Context& context, const Value& subject, const Value& key);
Value slice_of(Context& context, const Value& subject, const Value (&bounds)[3]);

// a op b for + - * / // % **.
Value binary(Context& context, std::string_view op, const Value& a, const Value& b);
// a op b for == != < <= > >= in; "not in".
bool compare(Context& context, std::string_view op, const Value& a, const Value& b);

// Characters or items; -1, and failed, if it has no length.
int64_t length_of(Context& context, const Value& value);

// A text from the caller of a filter or method, or `absent`; failed if it is something else.
std::string_view text_argument(Context& context, const Arguments& arguments, size_t place,
                               std::string_view name, std::string_view absent);
int64_t integer_argument(Context& context, const Arguments& arguments, size_t place,
                         std::string_view name, int64_t absent);
bool flag_argument(const Arguments& arguments, size_t place, std::string_view name, bool absent);

// Every `old` replaced, at most `most` times (below 0: all).
Text replaced(const Text& text, std::string_view old, const Text& with, int64_t most);
// Without white space, or the characters of `set`, at the ends asked for.
Text trimmed(const Text& text, const Value* set, bool left, bool right);
// The same with what `change` makes of each stretch's bytes.
Text changed(const Text& text, const std::string& bytes);
// The place in Python's sense, counted from the end if below 0; false if it is outside.
bool place_of(int64_t index, int64_t length, int64_t& place);

}  // namespace penstock::llama::jinja
