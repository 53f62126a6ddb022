// penstock.yaml, read and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/result.h"
#include "worker/queue/config/config.h"

namespace penstock::queue {

constexpr size_t kMaxConfigBytes = 1U << 20;

// What is done with the files that a configuration names: none is opened, as it is only shown; what
// its parts don't read themselves later is read (`notify` has keys); all are opened and checked.
enum class NamedFiles : uint8_t { kNamed, kTrusted, kOpened };

// Reads a file. The error has one complaint a line, in the file's order.
Result<Config> load_config(const std::string& path, NamedFiles files = NamedFiles::kTrusted);
// The same from memory; `path` is for messages and for what is relative to it.
Result<Config> parse_config(std::string_view text, const std::string& path,
                            NamedFiles files = NamedFiles::kTrusted);

}  // namespace penstock::queue
