// Functions that templates call by name, in tables.
#pragma once

#include <string_view>

#include "worker/engines/llama/template/context.h"

namespace penstock::llama::jinja {

struct Method {
  std::string_view name;
  Callable::Native call;
};

// The one of that name, bound to `self`; undefined if there is none.
template <typename Methods>
Value bound_method(Context& context, const Methods& methods, const Value& self,
                   std::string_view name) {
  for (const Method& method : methods) {
    if (method.name == name) {
      return context.spend(sizeof(Callable))
                 ? context.heap().add(
                       Callable{.name = method.name, .native = method.call, .self = self})
                 : Value(Undefined{});
    }
  }
  return Undefined{name};
}

}  // namespace penstock::llama::jinja
