// What a program says: one JSON object a line (docs/PROCESS_PROTOCOL.md).
//
// The reader never throws. A line is one of the messages, or one of these:
//
//   Noise    an object with none of the protocol's keys, such as a library's own log
//   Dropped  a progress or a preview that cannot be read; nothing depends on it
//   Broken   anything else that cannot be read; its job fails
//
// Where several members have one name, the last counts.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "worker/pool/engine.h"

namespace penstock::process {

struct Hello {
  uint64_t version;
};
struct Ready {};
struct Progress {
  double fraction;  // as told
  uint32_t step;
  uint32_t steps;
};
// Bytes of the message, or a file in the job's folder.
struct Content {
  std::string type;  // empty: not told
  std::string bytes;
  std::optional<std::string> file;
};
struct Preview {
  Content picture;
};
struct Chunk {
  std::string text;
  std::string type;  // empty: not told
};
struct Answer {  // {"result": ...}
  Content content;
  Usage usage;  // its tokens
};
struct Refusal {  // {"error": ...}
  Failure failure;
};
struct Noise {};
struct Dropped {
  std::string why;
};
struct Broken {
  std::string why;  // "after the object ..., at column 17"
};

struct Message {
  std::optional<uint64_t> job;  // the one it is about, where the program says
  std::variant<Noise, Hello, Ready, Progress, Preview, Chunk, Answer, Refusal, Dropped, Broken>
      what;
};

class MessageReader {
 public:
  // `line` begins with '{'.
  Message read(std::string_view line);

 private:
  simdjson::dom::parser parser_;
};

}  // namespace penstock::process
