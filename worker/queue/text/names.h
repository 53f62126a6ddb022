// Names in messages: what was asked for, and what there is.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace penstock::queue {

// 'name', cut where it is long.
inline std::string quoted(std::string_view name) {
  constexpr size_t kMostBytes = 100;
  return "'" + std::string(name.substr(0, kMostBytes)) + "'";
}

// "a, b, c", or the first few hundred bytes of it; "none" if there are none. `name_of` gives the
// name of each; one with an empty name is left out.
template <typename Range, typename NameOf = std::identity>
std::string listed(const Range& range, NameOf&& name_of = {}) {
  constexpr size_t kMostBytes = 600;
  std::string list;
  for (const auto& each : range) {
    const std::string_view name = name_of(each);
    if (list.size() + name.size() > kMostBytes) {
      return list + ", ...";
    }
    list.append(list.empty() || name.empty() ? "" : ", ").append(name);
  }
  return list.empty() ? "none" : list;
}

}  // namespace penstock::queue
