// The functions that every template may call.
#include <time.h>

#include <array>

#include "shared/base/utf8.h"
#include "worker/engines/llama/template/bound_method.h"
#include "worker/engines/llama/template/builtins.h"

namespace penstock::llama::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;

Value range(Context& context, const Value&, const Arguments& arguments) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t count = arguments.places.size();
  bool fine = count >= 1 && count <= 3;
  for (size_t i = 0; fine && i < count; ++i) {
    fine = is_integer(arguments.places[i], bounds[count == 1 ? 1 : i]);
  }
  if (!fine || bounds[2] == 0) {
    return context.fail("range takes one to three integers, a step that is not 0");
  }
  std::vector<Value> numbers;
  for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];) {
    if (static_cast<int64_t>(numbers.size()) == kMaxRange || !context.step()) {
      return context.fail("range is longer than " + std::to_string(kMaxRange));
    }
    numbers.emplace_back(i);
    if (__builtin_add_overflow(i, bounds[2], &i)) {
      break;
    }
  }
  return context.list(std::move(numbers));
}

Dict named_values(const Arguments& arguments) {
  Dict dict;
  for (const Value& place : arguments.places) {
    const Dict* given = as<Dict>(place);
    if (given != nullptr) {
      dict = *given;
    }
  }
  return dict;
}

bool take_named(Context& context, const Arguments& arguments, Dict& dict) {
  for (const auto& [name, value] : arguments.named) {
    dict.set(context.text(name), value);
  }
  return context.spend(static_cast<int64_t>(dict.entries.size() * 2 * sizeof(Value)));
}

Value make_namespace(Context& context, const Value&, const Arguments& arguments) {
  Namespace space{named_values(arguments)};
  return take_named(context, arguments, space.members) ? context.heap().add(std::move(space))
                                                       : Value(Undefined{});
}

Value make_dict(Context& context, const Value&, const Arguments& arguments) {
  Dict dict = named_values(arguments);
  return take_named(context, arguments, dict) ? context.dict(std::move(dict)) : Value(Undefined{});
}

Value raise_exception(Context& context, const Value&, const Arguments& arguments) {
  Text said;
  const Value* message = arguments.find(0, "message");
  if (message != nullptr) {
    print(*message, said);
  }
  constexpr size_t kMost = 1000;
  const std::string_view shown = said.bytes().substr(0, kMost);
  return context.fail(std::string(shown.substr(0, utf8_complete_prefix(shown))),
                      Trouble::Kind::kRaised);
}

Value strftime_now(Context& context, const Value&, const Arguments& arguments) {
  const std::string format(text_argument(context, arguments, 0, "format", ""));
  const time_t now = context.now_unix_s();
  tm local{};
  localtime_r(&now, &local);
  char buffer[256];
  const size_t size =
      format.size() > 64 ? 0 : strftime(buffer, sizeof buffer, format.c_str(), &local);
  return size == 0 && !format.empty() ? context.fail("strftime_now: its format makes no short date")
                                      : context.text(std::string_view(buffer, size));
}

constexpr std::array kGlobals = {
    Method{"dict", make_dict},
    Method{"namespace", make_namespace},
    Method{"range", range},
    Method{"raise_exception", raise_exception},
    Method{"strftime_now", strftime_now},
};

}  // namespace

Value global_of(Context& context, std::string_view name) {
  return bound_method(context, kGlobals, None{}, name);
}

}  // namespace penstock::llama::jinja
