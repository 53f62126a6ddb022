#include "worker/ctl/arguments.h"

#include <algorithm>
#include <optional>

namespace penstock::ctl {
namespace {

// One argument that is an option, taken apart.
struct Typed {
  std::string shown;                      // as it was typed, without a value
  const Flag* flag = nullptr;             // none: there is no such option
  std::optional<std::string_view> value;  // in the same argument
};

Typed take_apart(std::string_view argument, std::span<const Flag> flags) {
  Typed typed;
  const bool is_long = argument.starts_with("--");
  if (is_long) {
    const size_t equals = argument.find('=');
    typed.shown = argument.substr(0, equals);
    if (equals != argument.npos) {
      typed.value = argument.substr(equals + 1);
    }
  } else {
    typed.shown = argument.substr(0, 2);
    if (argument.size() > 2) {
      typed.value = argument.substr(2);
    }
  }
  const auto found = std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) {
    return is_long ? typed.shown.substr(2) == flag.name : typed.shown[1] == flag.letter;
  });
  typed.flag = found != flags.end() ? &*found : nullptr;
  return typed;
}

}  // namespace

Result<Arguments> Arguments::parse(std::span<const char* const> typed,
                                   std::span<const Flag> flags) {
  Arguments out;
  bool options_over = false;
  for (size_t i = 0; i < typed.size(); ++i) {
    const std::string_view argument = typed[i];
    if (options_over || argument == "-" || !argument.starts_with('-')) {
      out.words_.emplace_back(argument);
      continue;
    }
    if (argument == "--") {
      options_over = true;
      continue;
    }
    const Typed option = take_apart(argument, flags);
    if (option.flag == nullptr) {
      return Error{"there is no option " + option.shown};
    }
    std::string value(option.value.value_or(""));
    if (option.flag->value.empty() && option.value.has_value()) {
      return Error{option.shown + " takes no value"};
    }
    if (!option.flag->value.empty() && !option.value.has_value()) {
      if (i + 1 == typed.size()) {
        return Error{option.shown + " lacks its " + std::string(option.flag->value)};
      }
      value = typed[++i];
    }
    if (!out.options_.emplace(option.flag->name, std::move(value)).second) {
      return Error{option.shown + " was given twice"};
    }
  }
  return out;
}

std::string Arguments::value(std::string_view flag, std::string_view otherwise) const {
  const auto found = options_.find(flag);
  return found != options_.end() ? found->second : std::string(otherwise);
}

}  // namespace penstock::ctl
