// Where a caller sees its jobs, as its edge has said.
#pragma once

#include <string_view>

namespace penstock::queue {

inline std::string_view jobs_path_or_default(std::string_view said) {
  return said.empty() ? "/jobs" : said;
}

}  // namespace penstock::queue
