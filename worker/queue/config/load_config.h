// penstock.yaml, read and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/result.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

// What is done with the files that a configuration names: none is opened, as it is only shown; what
// its parts don't read themselves later is read (`notify` has keys); all are opened and checked.
enum class NamedFiles : uint8_t { kNamed, kTrusted, kOpened };

// Reads a file, and what it includes. The error has one complaint a line, in the file's order.
Result<Config> load_config(const std::string& path, NamedFiles files = NamedFiles::kTrusted);
// The same from memory, which includes nothing; `path` is for messages and for what is relative to
// it.
Result<Config> parse_config(std::string_view text, const std::string& path,
                            NamedFiles files = NamedFiles::kTrusted);
// Where penstockd listens by that file, whatever else is wrong with it.
Result<std::string> load_socket(const std::string& path);

}  // namespace penstock::queue
