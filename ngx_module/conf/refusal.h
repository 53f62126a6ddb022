// Refusal: the body of a 429 by one limit, written when the configuration is read. Only the seconds
// are still to be put in, three times; refusing is the cheapest thing the edge does, and under
// attack the most frequent.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

// "SENTENCE Try again in N s."; `out` has room for sentence.size() + 48. Returns what was written.
std::string_view say_when(std::string_view sentence, int64_t seconds, char* out) noexcept;

struct Refusal {
  static constexpr size_t kPieces = 4;
  ngx_str_t pieces[kPieces] = {};  // between them go the seconds

  // The body for a limit's name, sentence and error.code; `docs` may be empty. False when memory
  // ran out.
  bool prepare(ngx_pool_t* pool, std::string_view name, std::string_view sentence,
               std::string_view code, std::string_view docs) noexcept;
  // The body with the seconds in it; data is nullptr when memory ran out.
  ngx_str_t with(ngx_pool_t* pool, int64_t seconds) const noexcept;
};

}  // namespace penstock
