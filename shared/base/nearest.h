// The nearest word, for "did you mean ...?".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock {

// "a", "b" or "c" from many: the one with the least edit distance (Levenshtein). Of a long `word`
// only the beginning is looked at.
std::string nearest(std::string_view word, const std::vector<std::string>& words);

}  // namespace penstock
