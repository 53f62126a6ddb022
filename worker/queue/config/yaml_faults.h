// What is wrong with a text that is no YAML, where its reader's own words ("end of map flow not
// found", lines later) help nobody: a tab that indents, and a bracket that nobody closes.
#pragma once

#include <string>
#include <string_view>

namespace penstock::queue {

// Where a reader gave up: lines are counted from 1.
struct YamlFault {
  int line = 1;
  std::string what;  // "illegal block entry"
};

// The same, with what the text tells besides; of a tab, with its line. Linear in the text.
YamlFault explain(std::string_view text, YamlFault fault);

}  // namespace penstock::queue
