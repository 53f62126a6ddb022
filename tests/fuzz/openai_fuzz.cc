// openai::parse on hostile bodies, then openai::Answer with the same bytes as the model's words.
#include <simdjson.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "shared/base/utf8.h"
#include "worker/pool/openai.h"

namespace {

using penstock::Failure;
using penstock::openai::Answer;
using penstock::openai::CompletionRequest;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

class CheckingSink final : public penstock::Sink {
 public:
  void head(penstock::JobNumber, int, std::string_view, int64_t, std::string_view) override {}
  void chunk(penstock::JobNumber, std::string_view bytes) override {
    require(penstock::utf8_first_invalid(bytes) == std::string_view::npos);
  }
  void progress(penstock::JobNumber, double, uint32_t, uint32_t) override {}
  void done(penstock::JobNumber, const penstock::Usage&) override { ++ended; }
  void failed(penstock::JobNumber, const Failure&) override { require(false); }
  int ended = 0;
};

void check(const CompletionRequest& request) {
  const auto temperature = request.sampling.temperature.value_or(1);
  require(temperature >= 0 && temperature <= 2);
  const auto top_p = request.sampling.top_p.value_or(1);
  require(top_p > 0 && top_p <= 1);
  require(!request.max_tokens.has_value() || *request.max_tokens > 0);
  require(request.stop.size() <= penstock::openai::kMaxStops);
  require(request.stop_token_ids.size() <= penstock::openai::kMaxStopTokens);
  require(request.logit_bias.size() <= penstock::openai::kMaxBiases);
  const auto penalty = request.sampling.repetition_penalty.value_or(1);
  require(penalty > 0 && penalty <= 10);
  require(!request.chat || !request.messages.empty());
  require(penstock::utf8_first_invalid(request.prompt) == std::string_view::npos);
}

// A second opinion: what was accepted is JSON as a whole. (It refuses numbers past 64 bits.)
void check_json(std::string_view body) {
  simdjson::dom::parser second;
  const auto error = second.parse(body.data(), body.size()).error();
  require(error == simdjson::SUCCESS || error == simdjson::NUMBER_ERROR);
}

void answer(const CompletionRequest& request, std::string_view words) {
  CheckingSink sink;
  Answer answer(1, request, "m", 0, sink);
  for (size_t at = 0; at < words.size(); at += 3) {
    answer.text(words.substr(at, 3));
  }
  answer.finish(penstock::openai::Finish::kStop, {});
  require(sink.ended == 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const bool free = size % 2 == 0;  // whether the operator allows all there is
  penstock::openai::Parser parser({.lenient = free, .steering = free});
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const auto parsed = parser.parse({.method = "POST", .path = path, .body = body});
    if (const auto* failure = std::get_if<Failure>(&parsed)) {
      require(failure->status == 400 && !failure->message.empty());
      continue;
    }
    check(std::get<CompletionRequest>(parsed));
    check_json(body);
    answer(std::get<CompletionRequest>(parsed), body);
  }
  const auto overridden = parser.parse({.method = "POST",
                                        .path = "/v1/completions",
                                        .body = R"({"prompt":"x","max_tokens":5})",
                                        .override = body});
  if (const auto* failure = std::get_if<Failure>(&overridden)) {
    require(failure->message.find("he operator's override") != std::string::npos);
  } else {
    check(std::get<CompletionRequest>(overridden));
    require(*std::get<CompletionRequest>(overridden).max_tokens <= 5);
  }
  CompletionRequest stream;
  stream.stream = true;
  stream.stop = {std::string(body.substr(0, 2)) + "a", "ab"};
  answer(stream, body);
  return 0;
}
