#include <gtest/gtest.h>
#include <simdjson.h>

#include <random>

#include "tests/unit/pool/recording_sink.h"
#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

using test::RecordingSink;

constexpr Usage kUsage{.prompt_tokens = 3, .completion_tokens = 4, .device_ns = 5};

// The data of each event of a stream; fails unless it is one.
std::vector<std::string> events_of(std::string_view stream) {
  std::vector<std::string> events;
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    if (!stream.starts_with("data: ") || end == stream.npos) {
      ADD_FAILURE() << "not an event: " << stream;
      break;
    }
    events.emplace_back(stream.substr(6, end - 6));
    stream.remove_prefix(end + 2);
  }
  return events;
}

simdjson::dom::element json(simdjson::dom::parser& parser, const std::string& text) {
  simdjson::dom::element element;
  EXPECT_EQ(parser.parse(text).get(element), simdjson::SUCCESS) << text;
  return element;
}

std::string string_at(simdjson::dom::element element, const char* pointer) {
  std::string_view text;
  return element.at_pointer(pointer).get(text) == simdjson::SUCCESS ? std::string(text) : "";
}

// What a caller of `request` reads when the model says `pieces`; a stop string ends it.
std::string read_text(const CompletionRequest& request, const std::vector<std::string>& pieces) {
  RecordingSink sink;
  Answer answer(1, request, "m", 0, sink);
  bool stopped = false;
  for (const std::string& piece : pieces) {
    stopped = stopped || !answer.text(piece);
  }
  answer.finish(stopped ? Finish::kStop : Finish::kLength, kUsage);
  simdjson::dom::parser parser;
  if (!request.stream) {
    return string_at(json(parser, sink.body),
                     request.chat ? "/choices/0/message/content" : "/choices/0/text");
  }
  std::string text;
  for (const std::string& event : events_of(sink.body)) {
    if (event != "[DONE]") {
      text += string_at(json(parser, event),
                        request.chat ? "/choices/0/delta/content" : "/choices/0/text");
    }
  }
  return text;
}

std::vector<CompletionRequest> four_ways(const std::vector<std::string>& stop = {}) {
  std::vector<CompletionRequest> ways(4);
  for (size_t i = 0; i < ways.size(); ++i) {
    ways[i].chat = (i & 1) != 0;
    ways[i].stream = (i & 2) != 0;
    ways[i].stop = stop;
  }
  return ways;
}

TEST(OpenaiAnswerTest, AWholeCompletionIsOneObjectOfKnownLength) {
  RecordingSink sink;
  Answer answer(9, CompletionRequest{}, "my \"model\"", 1763780000, sink);
  EXPECT_TRUE(sink.heads.empty()) << "the length is not known yet";
  EXPECT_TRUE(answer.text("Hello"));
  EXPECT_TRUE(answer.text(", \"world\"\n"));
  answer.finish(Finish::kLength, kUsage);

  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].job, 9U);
  EXPECT_EQ(sink.heads[0].status, 200);
  EXPECT_EQ(sink.heads[0].content_type, "application/json");
  EXPECT_EQ(sink.heads[0].content_length, static_cast<int64_t>(sink.body.size()));
  const size_t id_at = sink.body.find("cmpl-");
  ASSERT_NE(id_at, std::string::npos);
  EXPECT_EQ(sink.body.substr(0, id_at), R"({"id":")");
  EXPECT_EQ(
      sink.body.substr(id_at + 29),
      R"(","object":"text_completion","created":1763780000,"model":"my \"model\"","choices":[{"index":0,)"
      R"("text":"Hello, \"world\"\n","logprobs":null,"finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})");
  ASSERT_EQ(sink.usages.size(), 1U);
  EXPECT_EQ(sink.usages[0].device_ns, 5U);
}

TEST(OpenaiAnswerTest, AWholeChatCompletionHasAMessage) {
  RecordingSink sink;
  CompletionRequest request;
  request.chat = true;
  Answer answer(1, request, "m", 5, sink);
  answer.text("Hi");
  answer.finish(Finish::kStop, kUsage);
  EXPECT_NE(
      sink.body.find(R"("object":"chat.completion","created":5,"model":"m","choices":[{"index":0,)"
                     R"("message":{"role":"assistant","content":"Hi","refusal":null},)"
                     R"("logprobs":null,"finish_reason":"stop"}])"),
      std::string::npos)
      << sink.body;
}

TEST(OpenaiAnswerTest, AStreamedChatOpensWithTheRoleAndEndsWithDone) {
  RecordingSink sink;
  CompletionRequest request;
  request.chat = request.stream = true;
  Answer answer(1, request, "m", 5, sink);
  EXPECT_TRUE(sink.heads.empty()) << "until the first text the job may still run elsewhere";
  answer.text("Hi");
  ASSERT_EQ(sink.heads.size(), 1U);
  EXPECT_EQ(sink.heads[0].content_type, "text/event-stream; charset=utf-8");
  EXPECT_EQ(sink.heads[0].content_length, -1);
  answer.finish(Finish::kStop, kUsage);

  const auto events = events_of(sink.body);
  ASSERT_EQ(events.size(), 4U);
  const auto tail = [](const std::string& event) {
    return event.substr(event.find("\"choices\""));
  };
  EXPECT_EQ(
      tail(events[0]),
      R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(
      tail(events[1]),
      R"("choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(tail(events[2]),
            R"("choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})");
  EXPECT_EQ(events[3], "[DONE]");
  EXPECT_EQ(events[0].substr(0, 60), events[2].substr(0, 60)) << "one id for all";
  EXPECT_NE(events[0].find("\"object\":\"chat.completion.chunk\""), std::string::npos);
}

TEST(OpenaiAnswerTest, AStreamTellsUsageLastWhenAsked) {
  RecordingSink sink;
  CompletionRequest request;
  request.stream = request.include_usage = true;
  Answer answer(1, request, "m", 5, sink);
  answer.text("Hi");
  answer.finish(Finish::kLength, kUsage);
  const auto events = events_of(sink.body);
  ASSERT_EQ(events.size(), 4U);
  EXPECT_NE(events[0].find(R"("text":"Hi","logprobs":null,"finish_reason":null}],"usage":null})"),
            std::string::npos);
  EXPECT_NE(events[1].find(R"("text":"","logprobs":null,"finish_reason":"length"}],"usage":null})"),
            std::string::npos);
  EXPECT_NE(
      events[2].find(
          R"("choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})"),
      std::string::npos);
  EXPECT_EQ(events[3], "[DONE]");
}

TEST(OpenaiAnswerTest, StopStringsAreFoundAcrossPiecesAndNeverShown) {
  const std::string said = "one two<stop>three";
  for (const CompletionRequest& request : four_ways({"<stop>", "never"})) {
    for (size_t first = 0; first <= said.size(); ++first) {
      for (size_t second = first; second <= said.size(); ++second) {
        EXPECT_EQ(read_text(request, {said.substr(0, first), said.substr(first, second - first),
                                      said.substr(second)}),
                  "one two")
            << first << " " << second;
      }
    }
  }
}

TEST(OpenaiAnswerTest, WhatOnlyBeganLikeAStopStringIsShown) {
  for (const CompletionRequest& request : four_ways({"<stop>"})) {
    EXPECT_EQ(read_text(request, {"a<st", "op", "<sto"}), "a<stop<sto")
        << "shown at the end at the latest";
    EXPECT_EQ(read_text(request, {"<<<<stop", ">b"}), "<<<");
  }
}

TEST(OpenaiAnswerTest, TheStopThatIsCompleteFirstCounts) {
  for (const CompletionRequest& request : four_ways({"abcd", "bc"})) {
    EXPECT_EQ(read_text(request, {"xabcd"}), "xa");
    EXPECT_EQ(read_text(request, {"xa", "b", "cd"}), "xa");
  }
  for (const CompletionRequest& request : four_ways({"bc", "abc"})) {
    EXPECT_EQ(read_text(request, {"xabc"}), "x");
    EXPECT_EQ(read_text(request, {"xa", "b", "c"}), "x");
  }
}

TEST(OpenaiAnswerTest, TextDoesNotDependOnHowItWasCut) {
  std::mt19937 random(7);
  const std::string letters = "aab";
  for (int round = 0; round < 2000; ++round) {
    std::string said;
    for (int i = 0; i < 12; ++i) {
      said += letters[random() % letters.size()];
    }
    const auto request = four_ways({said.substr(random() % 8, 1 + random() % 4), "aba"})[round % 4];
    std::vector<std::string> pieces;
    for (size_t at = 0; at < said.size();) {
      pieces.push_back(said.substr(at, 1 + random() % 4));
      at += pieces.back().size();
    }
    EXPECT_EQ(read_text(request, pieces), read_text(request, {said}))
        << said << " / " << request.stop[0];
  }
}

TEST(OpenaiAnswerTest, ASplitCharacterIsHeldBackUntilItIsWhole) {
  const std::string said = "é€😀é";
  for (const CompletionRequest& request : four_ways()) {
    for (size_t cut = 0; cut <= said.size(); ++cut) {
      EXPECT_EQ(read_text(request, {said.substr(0, cut), said.substr(cut)}), said) << cut;
    }
    std::vector<std::string> bytes;
    for (const char byte : said) {
      bytes.emplace_back(1, byte);
    }
    EXPECT_EQ(read_text(request, bytes), said);
  }
}

TEST(OpenaiAnswerTest, AChatBeginsWithItsFirstWordAndACompletionAsTheModelSaysIt) {
  const std::string said = " \n\t  a b\n c ";
  for (const CompletionRequest& request : four_ways({"stop"})) {
    for (size_t cut = 0; cut <= said.size(); ++cut) {
      EXPECT_EQ(read_text(request, {said.substr(0, cut), said.substr(cut)}),
                request.chat ? "a b\n c " : said)
          << cut;
    }
    EXPECT_EQ(read_text(request, {" ", "\n"}), request.chat ? "" : " \n");
  }
  for (const CompletionRequest& request : four_ways({"\n"})) {
    EXPECT_EQ(read_text(request, {" \n", "never"}), request.chat ? "" : " ")
        << "a stop string is one there, too";
  }
}

TEST(OpenaiAnswerTest, AStreamHoldsBackNoMoreThanItMust) {
  RecordingSink sink;
  CompletionRequest request;
  request.stream = true;
  request.stop = {"\n\n"};
  Answer answer(1, request, "m", 5, sink);
  answer.text("a\xc3");
  EXPECT_NE(sink.body.find("\"text\":\"a\""), std::string::npos);
  answer.text("\xa9\n");
  EXPECT_NE(sink.body.find("\"text\":\"é\""), std::string::npos);
  EXPECT_EQ(sink.body.find("\\n"), std::string::npos);
  answer.text("b");
  EXPECT_NE(sink.body.find("\"text\":\"\\nb\""), std::string::npos);
}

TEST(OpenaiAnswerTest, AnyBytesBecomeValidJson) {
  const std::string kJunk = "\xEF\xBF\xBD";
  for (const CompletionRequest& request : four_ways()) {
    EXPECT_EQ(read_text(request, {"a\xff", "b\x01\x1f\"\\"}), "a" + kJunk + "b\x01\x1f\"\\");
    EXPECT_EQ(read_text(request, {std::string("\0", 1)}), std::string("\0", 1));
    EXPECT_EQ(read_text(request, {"a\xc3"}).substr(0, 4), "a" + kJunk) << "cut off at the end";
    std::string all;
    for (int byte = 0; byte < 256; ++byte) {
      all += static_cast<char>(byte);
    }
    EXPECT_FALSE(read_text(request, {all, all}).empty());
  }
}

TEST(OpenaiAnswerTest, IdsDiffer) {
  RecordingSink sink;
  Answer(1, CompletionRequest{}, "m", 0, sink).finish(Finish::kStop, {});
  const std::string first = std::exchange(sink.body, "");
  Answer(1, CompletionRequest{}, "m", 0, sink).finish(Finish::kStop, {});
  EXPECT_NE(first, sink.body);
}

// What is told of each token, of all events in order: "token logprob offset" or "token logprob
// bytes".
std::string logprobs_of(const CompletionRequest& request,
                        const std::vector<std::pair<std::string, float>>& tokens) {
  RecordingSink sink;
  Answer answer(1, request, "m", 0, sink);
  bool stopped = false;
  for (const auto& [bytes, logprob] : tokens) {
    stopped = stopped || !answer.text(bytes, logprob);
  }
  answer.finish(stopped ? Finish::kStop : Finish::kLength, kUsage);
  std::string told;
  simdjson::dom::parser parser;
  const auto tell = [&](const std::string& text) {
    const auto logprobs = json(parser, text)["choices"].at(0)["logprobs"];
    if (logprobs.is_null()) {
      return;
    }
    if (request.chat) {
      for (const auto token : logprobs["content"].get_array()) {
        told += std::string(token["token"].get_string().value()) + " " +
                std::to_string(token["logprob"].get_double().value()).substr(0, 4) + " " +
                std::to_string(token["bytes"].get_array().size()) + "|";
        EXPECT_EQ(token["top_logprobs"].get_array().size(), 0U);
      }
      return;
    }
    for (size_t i = 0; i < logprobs["tokens"].get_array().size(); ++i) {
      told += std::string(logprobs["tokens"].at(i).get_string().value()) + " " +
              std::to_string(logprobs["token_logprobs"].at(i).get_double().value()).substr(0, 4) +
              " " + std::to_string(logprobs["text_offset"].at(i).get_int64().value()) + "|";
    }
  };
  if (!request.stream) {
    tell(sink.body);
    return told;
  }
  for (const std::string& event : events_of(sink.body)) {
    if (event != "[DONE]") {
      tell(event);
    }
  }
  return told;
}

TEST(OpenaiAnswerTest, LogprobsAreToldOfEachTokenOnceWholeOrStreamed) {
  // Of a character in two tokens, neither is text by itself.
  const std::vector<std::pair<std::string, float>> tokens = {
      {"caf", -0.5F}, {"\xc3", -1.5F}, {"\xa9", -0.25F}, {" au", -2}};
  for (const bool stream : {false, true}) {
    CompletionRequest request{.logprobs = true, .stream = stream};
    EXPECT_EQ(logprobs_of(request, tokens),
              "caf -0.5 0|bytes:\\xc3 -1.5 3|bytes:\\xa9 -0.2 4| au -2.0 4|");
    request.chat = true;
    EXPECT_EQ(logprobs_of(request, tokens), "caf -0.5 3|\\xc3 -1.5 1|\\xa9 -0.2 1| au -2.0 3|");
    request.logprobs = false;
    EXPECT_EQ(logprobs_of(request, tokens), "");
  }
}

TEST(OpenaiAnswerTest, OfWhatAStopStringCutsOffNoLogprobsAreTold) {
  for (const bool stream : {false, true}) {
    const CompletionRequest request{.stop = {"ENDS"}, .logprobs = true, .stream = stream};
    EXPECT_EQ(logprobs_of(request, {{"a", -1}, {" bE", -1}, {"ND", -1}, {"S c", -1}}),
              "a -1.0 0| bE -1.0 1|");
    EXPECT_EQ(logprobs_of(request, {{"a", -1}, {"END", -1}, {" b", -1}}),
              "a -1.0 0|END -1.0 1| b -1.0 4|")
        << "it was none";
  }
}

}  // namespace
}  // namespace penstock::openai
