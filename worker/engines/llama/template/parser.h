// Parser: reads a template's text and gives its statements.
#pragma once

#include <string_view>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/template/syntax.h"

namespace penstock::llama::jinja {

// Constants are put on `heap`, which must outlive the statements. An Error says the line, and what
// it is that is not implemented here.
Result<std::vector<Statement>> parse(std::string_view source, Heap& heap);

}  // namespace penstock::llama::jinja
