// Reading the text files of a model folder. They come from strangers: sizes are capped, and what is
// quoted from them in an error message is cut short and made printable.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::llama {

// The whole file. Refuses what is not a regular file or larger than max_bytes.
Result<std::string> read_file(const std::string& path, size_t max_bytes);

// The same of a file that need not be there: none if it is not.
Result<std::optional<std::string>> read_file_if_there(const std::string& path, size_t max_bytes);

// Parses `text`; `name` is the file's, for messages. The element lives in `parser`.
Result<simdjson::dom::element> parse_json(simdjson::dom::parser& parser, std::string_view text,
                                          const std::string& name);
// The same of what must be an object.
Result<simdjson::dom::element> parse_json_object(simdjson::dom::parser& parser,
                                                 std::string_view text, const std::string& name);

// "text" in quotes, at most about 100 characters, control characters as '?'.
std::string quote(std::string_view text);

}  // namespace penstock::llama
