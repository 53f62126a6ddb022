// JSON text, written.
#pragma once

#include <string>
#include <string_view>

#include "shared/http/problem.h"

namespace penstock::queue {

// A JSON string, quotes included; what is not UTF-8 is replaced.
inline std::string json_string(std::string_view text) {
  std::string out(text.size() * 6 + 2, '"');
  char* const end = http::escape_json(text, out.data() + 1, out.data() + out.size() - 1);
  out.resize(static_cast<size_t>(end - out.data()));
  out.push_back('"');
  return out;
}

}  // namespace penstock::queue
