// Operators, subscripts and attributes.
#include <algorithm>
#include <cmath>

#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/characters.h"

namespace penstock::llama::jinja {
namespace {

constexpr int64_t kMaxRepeats = 1 << 20;

Value wrong_operands(Context& context, std::string_view op, const Value& a, const Value& b) {
  for (const Value& side : {a, b}) {
    if (const auto* undefined = std::get_if<Undefined>(&side)) {
      return context.fail("'" + std::string(undefined->name) + "' is undefined");
    }
  }
  return context.fail("there is no " + std::string(op) + " of " + kind_of(a) + " and " +
                      kind_of(b));
}

Value too_large(Context& context) { return context.fail("a number passes 64 bits"); }

int64_t floored_quotient(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0) ? 1 : 0);
}

Value power(Context& context, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  int64_t result = 1;
  for (int64_t i = 0; i < exponent && result != 0 && (base < -1 || base > 1 || i < 2); ++i) {
    if (__builtin_mul_overflow(result, base, &result)) {
      return too_large(context);
    }
  }
  return base == -1 && exponent > 2 ? int64_t{exponent % 2 == 0 ? 1 : -1} : result;
}

Value of_integers(Context& context, std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+" || op == "-" || op == "*") {
    const bool over = op == "+"   ? __builtin_add_overflow(a, b, &result)
                      : op == "-" ? __builtin_sub_overflow(a, b, &result)
                                  : __builtin_mul_overflow(a, b, &result);
    return over ? too_large(context) : Value(result);
  }
  if (op == "**") {
    return power(context, a, b);
  }
  if (b == 0) {
    return context.fail("division by zero");
  }
  if (op == "/") {
    return static_cast<double>(a) / static_cast<double>(b);
  }
  if (a == INT64_MIN && b == -1) {
    return op == "%" ? Value(int64_t{0}) : too_large(context);
  }
  return op == "//" ? floored_quotient(a, b) : a - b * floored_quotient(a, b);
}

Value of_floats(Context& context, std::string_view op, double a, double b) {
  if (op == "+") {
    return a + b;
  }
  if (op == "-") {
    return a - b;
  }
  if (op == "*") {
    return a * b;
  }
  if (op == "**") {
    return std::pow(a, b);
  }
  if (b == 0) {
    return context.fail("division by zero");
  }
  if (op == "/") {
    return a / b;
  }
  return op == "//" ? std::floor(a / b) : a - b * std::floor(a / b);
}

Value repeated(Context& context, const Value& subject, int64_t times) {
  times = std::clamp<int64_t>(times, 0, kMaxRepeats);
  const Text* text = as<Text>(subject);
  const List* list = as<List>(subject);
  const auto each =
      static_cast<int64_t>(text != nullptr ? text->size() : list->items.size() * sizeof(Value));
  if (!context.step(times) || !context.spend(each * times)) {
    return Undefined{};
  }
  Text copies;
  std::vector<Value> items;
  for (int64_t i = 0; i < times; ++i) {
    if (text != nullptr) {
      copies.append(*text);
    } else {
      items.insert(items.end(), list->items.begin(), list->items.end());
    }
  }
  return text != nullptr ? context.text(std::move(copies))
                         : context.list(std::move(items), list->shape);
}

bool is_sequence(const Value& value) {
  const List* list = as<List>(value);
  return as<Text>(value) != nullptr || (list != nullptr && list->shape != List::Shape::kGenerator);
}

bool contains(Context& context, const Value& whole, const Value& part) {
  if (as<Text>(whole) != nullptr) {
    if (as<Text>(part) == nullptr) {
      wrong_operands(context, "in", part, whole);
      return false;
    }
    return text_of(whole).find(text_of(part)) != std::string_view::npos;
  }
  if (const Dict* dict = as<Dict>(whole)) {
    return context.step(static_cast<int64_t>(dict->entries.size())) && dict->find(part) != nullptr;
  }
  std::vector<Value> items;
  return context.items_of(whole, items) &&
         std::any_of(items.begin(), items.end(),
                     [&](const Value& item) { return equal(item, part); });
}

// `bound` as slice.indices() has it; false if it is no integer.
bool bound_of(Context& context, const Value& bound, int64_t length, bool forward, int64_t& place) {
  int64_t index = 0;
  if (!is_integer(bound, index)) {
    context.fail(std::string("a slice ends at an integer, not at ") + kind_of(bound));
    return false;
  }
  index = index < 0 ? index + length : index;
  place = std::clamp(index, int64_t{forward ? 0 : -1}, forward ? length : length - 1);
  return true;
}

}  // namespace

Value binary(Context& context, std::string_view op, const Value& a, const Value& b) {
  int64_t i = 0;
  int64_t j = 0;
  double x = 0;
  double y = 0;
  if (is_integer(a, i) && is_integer(b, j)) {
    return of_integers(context, op, i, j);
  }
  if (is_number(a, x) && is_number(b, y)) {
    return of_floats(context, op, x, y);
  }
  if (op == "*" && is_sequence(a) && is_integer(b, j)) {
    return repeated(context, a, j);
  }
  if (op == "*" && is_sequence(b) && is_integer(a, i)) {
    return repeated(context, b, i);
  }
  if (op == "+" && as<Text>(a) != nullptr && as<Text>(b) != nullptr) {
    if (!context.spend(static_cast<int64_t>(text_of(a).size()))) {
      return Undefined{};
    }
    Text joined = *as<Text>(a);
    joined.append(*as<Text>(b));
    return context.text(std::move(joined));
  }
  if (op == "+" && as<List>(a) != nullptr && as<List>(b) != nullptr && is_sequence(a) &&
      as<List>(a)->shape == as<List>(b)->shape) {
    std::vector<Value> items = as<List>(a)->items;
    items.insert(items.end(), as<List>(b)->items.begin(), as<List>(b)->items.end());
    return context.list(std::move(items), as<List>(a)->shape);
  }
  return wrong_operands(context, op, a, b);
}

bool compare(Context& context, std::string_view op, const Value& a, const Value& b) {
  context.step(static_cast<int64_t>(std::min(text_of(a).size(), text_of(b).size())) / 64);
  if (op == "==" || op == "!=") {
    return equal(a, b) == (op == "==");
  }
  if (op == "in" || op == "not in") {
    return contains(context, b, a) == (op == "in");
  }
  int result = 0;
  if (!order(a, b, result)) {
    wrong_operands(context, op, a, b);
    return false;
  }
  return op == "<" ? result < 0 : op == "<=" ? result <= 0 : op == ">" ? result > 0 : result >= 0;
}

int64_t length_of(Context& context, const Value& value) {
  if (as<Text>(value) != nullptr) {
    return length_of(text_of(value));
  }
  if (const Dict* dict = as<Dict>(value)) {
    return static_cast<int64_t>(dict->entries.size());
  }
  const List* list = as<List>(value);
  if (list != nullptr && list->shape != List::Shape::kGenerator) {
    return static_cast<int64_t>(list->items.size());
  }
  if (!is_undefined(value)) {
    context.fail(std::string(list != nullptr ? "a generator" : kind_of(value)) + " has no length");
  }
  return is_undefined(value) ? 0 : -1;
}

bool place_of(int64_t index, int64_t length, int64_t& place) {
  place = index < 0 ? index + length : index;
  return place >= 0 && place < length;
}

Value attribute_of(Context& context, const Value& subject, std::string_view name) {
  if (const auto* undefined = std::get_if<Undefined>(&subject)) {
    return context.fail("'" + std::string(undefined->name) + "' is undefined");
  }
  const Value method = method_of(context, subject, name);
  if (!is_undefined(method)) {
    return method;
  }
  const Dict* dict = as<Dict>(subject);
  if (const auto* space = std::get_if<Namespace*>(&subject)) {
    dict = &(*space)->members;
  }
  const Text key(name, Hand::kTemplate);
  const Value* found = dict == nullptr ? nullptr : dict->find(&key);
  return found != nullptr ? *found : Value(Undefined{name});
}

Value item_of(Context& context, const Value& subject, const Value& key) {
  if (const auto* undefined = std::get_if<Undefined>(&subject)) {
    return context.fail("'" + std::string(undefined->name) + "' is undefined");
  }
  if (const Dict* dict = as<Dict>(subject)) {
    const Value* found = dict->find(key);
    return found != nullptr ? *found : method_of(context, subject, text_of(key));
  }
  int64_t index = 0;
  if (!is_integer(key, index)) {
    return as<Text>(key) != nullptr ? attribute_of(context, subject, text_of(key))
                                    : Value(Undefined{"an item"});
  }
  int64_t place = 0;
  const bool sequence = is_sequence(subject);
  if (!sequence || !place_of(index, length_of(context, subject), place)) {
    return Undefined{"an item"};
  }
  if (const List* list = as<List>(subject)) {
    return list->items[static_cast<size_t>(place)];
  }
  const std::string_view bytes = text_of(subject);
  context.step(static_cast<int64_t>(bytes.size()) / 64);
  const size_t from = offset_of(bytes, place);
  return context.text(as<Text>(subject)->part(from, offset_of(bytes.substr(from), 1)));
}

Value slice_of(Context& context, const Value& subject, const Value (&bounds)[3]) {
  if (!is_sequence(subject)) {
    return is_undefined(subject) ? attribute_of(context, subject, "")
                                 : context.fail(std::string(kind_of(subject)) + " has no slices");
  }
  int64_t step = 1;
  if (!is_none(bounds[2]) && (!is_integer(bounds[2], step) || step == 0)) {
    return context.fail("a slice's step is an integer that is not 0");
  }
  const int64_t length = length_of(context, subject);
  int64_t from = step > 0 ? 0 : length - 1;
  int64_t until = step > 0 ? length : -1;
  if ((!is_none(bounds[0]) && !bound_of(context, bounds[0], length, step > 0, from)) ||
      (!is_none(bounds[1]) && !bound_of(context, bounds[1], length, step > 0, until))) {
    return Undefined{};
  }
  const Text* text = as<Text>(subject);
  if (text != nullptr && step == 1) {
    const size_t begin = offset_of(text->bytes(), from);
    const size_t end = from < until ? offset_of(text->bytes(), until) : begin;
    return context.text(text->part(begin, end - begin));
  }
  std::vector<Value> all;
  std::vector<Value> chosen;
  if (!context.items_of(subject, all)) {
    return Undefined{};
  }
  for (int64_t at = from; step > 0 ? at < until : at > until;) {
    chosen.push_back(all[static_cast<size_t>(at)]);
    if (__builtin_add_overflow(at, step, &at)) {
      break;
    }
  }
  if (text == nullptr) {
    return context.list(std::move(chosen), as<List>(subject)->shape);
  }
  Text joined;
  for (const Value& character : chosen) {
    joined.append(*as<Text>(character));
  }
  return context.text(std::move(joined));
}

}  // namespace penstock::llama::jinja
