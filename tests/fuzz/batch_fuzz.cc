// A batch's lines as a user may write them, what an edge may answer, and what an operator may call
// a rate; the same bytes serve as each.
#include <simdjson.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "worker/ctl/batch.h"
#include "worker/ctl/edge.h"
#include "worker/ctl/json.h"
#include "worker/ctl/next_step.h"
#include "worker/ctl/verbatim_json.h"

namespace {

using namespace penstock::ctl;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// One line, and JSON, whatever it is made of.
void check(const std::string& line) {
  require(line.find('\n') == line.size() - 1);
  require(is_object(line));
}

void answers(const std::string& text) {
  const BatchRequest request{.custom_id = text, .key = "k"};
  check(result_line(request, {200, text, text}));
  check(error_line(request, text, text));
}

void request(const std::string& text) {
  const auto request = parse_request(text);
  if (!request) {
    require(!request.error().message.empty());
    return;
  }
  require(is_object(request->body) && request->key.size() == 32);
  require(request->url.starts_with('/'));
  require(request->url.find_first_of(" \r\n#") == std::string::npos);
}

// What simdjson takes is JSON; of what is JSON it may refuse what does not go into 64 bits, half a
// surrogate pair, and what is nested too deeply for it.
void grammar(const std::string& text) {
  simdjson::dom::parser parser;
  const auto error = parser.parse(text.data(), text.size()).error();
  const bool good = bool{check_json(text)};
  require(good || error != simdjson::SUCCESS || text.starts_with("\xEF\xBB\xBF"));
  require(!good || error == simdjson::SUCCESS || error == simdjson::NUMBER_ERROR ||
          error == simdjson::STRING_ERROR || error == simdjson::DEPTH_ERROR);
  require(!good || check_json(compact_json(text)));
}

void location(const std::string& text) {
  static const auto edge = Edge::open({.url = "http://a:8080/gpu"});
  const std::string path = edge->path_of(text);
  require(path.empty() || path.starts_with('/'));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  answers(text);
  request(text);
  grammar(text);
  location(text);
  const auto interval_ns = parse_rate_ns(text);
  require(!interval_ns || *interval_ns > 0);
  return 0;
}
