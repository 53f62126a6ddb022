// `is ...`
#include <algorithm>
#include <array>

#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/characters.h"

namespace penstock::llama::jinja {
namespace {

template <typename T>
bool holds_type(Context&, const Value& value, const Arguments&) {
  return std::holds_alternative<T>(value);
}

bool is_defined(Context&, const Value& value, const Arguments&) { return !is_undefined(value); }

bool is_flag(Context&, const Value& value, bool wanted) {
  const bool* flag = std::get_if<bool>(&value);
  return flag != nullptr && *flag == wanted;
}
bool is_true(Context& c, const Value& value, const Arguments&) { return is_flag(c, value, true); }
bool is_false(Context& c, const Value& value, const Arguments&) { return is_flag(c, value, false); }

bool is_any_number(Context&, const Value& value, const Arguments&) {
  double number = 0;
  return is_number(value, number);
}

bool is_iterable(Context&, const Value& value, const Arguments&) {
  return as<Text>(value) != nullptr || as<List>(value) != nullptr || as<Dict>(value) != nullptr ||
         is_undefined(value);
}

bool is_sequence(Context& context, const Value& value, const Arguments& arguments) {
  const List* list = as<List>(value);
  return is_iterable(context, value, arguments) &&
         (list == nullptr || list->shape != List::Shape::kGenerator);
}

const Value& other(Context& context, const Arguments& arguments) {
  static const Value kNothing = None{};
  if (arguments.places.empty()) {
    context.fail("a test that compares needs something to compare with");
    return kNothing;
  }
  return arguments.places[0];
}

template <const char* const& Op>
bool compares(Context& context, const Value& value, const Arguments& arguments) {
  const Value& with = other(context, arguments);
  return !context.failed() && compare(context, Op, value, with);
}
constexpr const char* kEqual = "==";
constexpr const char* kUnequal = "!=";
constexpr const char* kLess = "<";
constexpr const char* kLessEqual = "<=";
constexpr const char* kGreater = ">";
constexpr const char* kGreaterEqual = ">=";
constexpr const char* kIn = "in";

bool is_same_as(Context& context, const Value& value, const Arguments& arguments) {
  const Value& with = other(context, arguments);
  return value.index() == with.index() && equal(value, with);
}

bool divides(Context& context, const Value& value, int64_t divisor, int64_t rest) {
  int64_t number = 0;
  if (!is_integer(value, number) || divisor == 0) {
    context.fail(std::string("only integers are divided here, and not by 0; not ") +
                 kind_of(value));
    return false;
  }
  return divisor == -1 ? rest == 0 : (number % divisor + divisor) % divisor == rest;
}
bool is_even(Context& c, const Value& value, const Arguments&) { return divides(c, value, 2, 0); }
bool is_odd(Context& c, const Value& value, const Arguments&) { return divides(c, value, 2, 1); }
bool is_divisible(Context& context, const Value& value, const Arguments& arguments) {
  int64_t divisor = 0;
  is_integer(other(context, arguments), divisor);
  return divides(context, value, divisor, 0);
}

bool is_cased(const Value& value, Case wanted) {
  const std::string_view text = text_of(value);
  return in_case(text, wanted) == text &&
         in_case(text, Case::kLower) != in_case(text, Case::kUpper);
}
bool is_lower(Context&, const Value& value, const Arguments&) {
  return is_cased(value, Case::kLower);
}
bool is_upper(Context&, const Value& value, const Arguments&) {
  return is_cased(value, Case::kUpper);
}

// Sorted by name.
constexpr std::array kTests = {
    Test{"!=", compares<kUnequal>},
    Test{"<", compares<kLess>},
    Test{"<=", compares<kLessEqual>},
    Test{"==", compares<kEqual>},
    Test{">", compares<kGreater>},
    Test{">=", compares<kGreaterEqual>},
    Test{"boolean", holds_type<bool>},
    Test{"callable", holds_type<const Callable*>},
    Test{"defined", is_defined},
    Test{"divisibleby", is_divisible},
    Test{"eq", compares<kEqual>},
    Test{"equalto", compares<kEqual>},
    Test{"even", is_even},
    Test{"false", is_false},
    Test{"float", holds_type<double>},
    Test{"ge", compares<kGreaterEqual>},
    Test{"greaterthan", compares<kGreater>},
    Test{"gt", compares<kGreater>},
    Test{"in", compares<kIn>},
    Test{"integer", holds_type<int64_t>},
    Test{"iterable", is_iterable},
    Test{"le", compares<kLessEqual>},
    Test{"lessthan", compares<kLess>},
    Test{"lower", is_lower},
    Test{"lt", compares<kLess>},
    Test{"mapping", holds_type<const Dict*>},
    Test{"ne", compares<kUnequal>},
    Test{"none", holds_type<None>},
    Test{"number", is_any_number},
    Test{"odd", is_odd},
    Test{"sameas", is_same_as},
    Test{"sequence", is_sequence},
    Test{"string", holds_type<const Text*>},
    Test{"true", is_true},
    Test{"undefined", holds_type<Undefined>},
    Test{"upper", is_upper},
};
constexpr auto kByName = [](const Test& a, const Test& b) { return a.name < b.name; };
static_assert(std::is_sorted(kTests.begin(), kTests.end(), kByName));

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* found = std::lower_bound(kTests.begin(), kTests.end(), Test{name, nullptr}, kByName);
  return found != kTests.end() && found->name == name ? found : nullptr;
}

}  // namespace penstock::llama::jinja
