// Replies: whole answers that penstockd makes itself, as frames.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/wire/messages.h"

namespace penstock::queue {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kDuplicateHeader = "Penstock-Duplicate: true\n";

// HEAD, the body, DONE. `head.content_length_plus1` is filled in.
inline void append_reply(std::string& out, uint64_t id, wire::Head head, std::string_view body) {
  head.content_length_plus1 = body.size() + 1;
  wire::append(out, id, head);
  wire::append_chunk(out, id, body);
  wire::append(out, id, wire::Done{});
}

// The same of a body that the edge reads from a file.
inline void append_file_reply(std::string& out, uint64_t id, wire::Head head, std::string_view file,
                              uint64_t bytes) {
  head.content_length_plus1 = bytes + 1;
  head.file = file;
  wire::append(out, id, head);
  wire::append(out, id, wire::Done{});
}

}  // namespace penstock::queue
