// The letters of the calendar's spans, as operators write them: 10r/m, 1000r/d.
#pragma once

#include <optional>
#include <string_view>

#include "shared/limit/window.h"

namespace penstock::limit {

constexpr std::string_view kLetters = "smhdwM";  // in the order of Span

// REQUIRES: one of the calendar's.
constexpr char letter_of(Span span) noexcept { return kLetters[static_cast<size_t>(span)]; }

inline std::optional<Span> span_of(std::string_view letter) noexcept {
  const size_t at = letter.size() == 1 ? kLetters.find(letter) : std::string_view::npos;
  return at == std::string_view::npos ? std::nullopt : std::optional(static_cast<Span>(at));
}

}  // namespace penstock::limit
