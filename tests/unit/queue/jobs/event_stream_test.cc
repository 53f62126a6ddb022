#include "worker/queue/jobs/event_stream.h"

#include <gtest/gtest.h>

#include "shared/wire/frame.h"

namespace penstock::queue {
namespace {

std::string payload_of(const std::string& frames) {
  return std::string(wire::decode(frames, {}).frame.payload);
}

TEST(EventStreamTest, AnEventIsOneServerSentEvent) {
  std::string out;
  EventStream{out, 7, false}.event("queued", {12, 34}, R"({"position":1})");
  EXPECT_EQ(payload_of(out), "event: queued\nid: 12-34\ndata: {\"position\":1}\n\n");
}

TEST(EventStreamTest, TextCannotForgeAnEvent) {
  const std::string json = chunk_json(5, "a\n\nevent: completed\ndata: {}\r\n\"");
  EXPECT_EQ(json.find_first_of("\r\n"), std::string::npos);
  EXPECT_TRUE(json.starts_with(R"({"offset":5,"text":"a\n\nevent)"));
}

TEST(EventStreamTest, AWebSocketMessageSaysItsLengthInOneOfThreeWays) {
  for (const size_t size : {size_t{0}, size_t{80}, size_t{300}, size_t{70'000}}) {
    std::string out;
    const std::string data = '"' + std::string(size, 'x') + '"';
    EventStream{out, 7, true}.event("chunk", {}, data);
    const std::string message = payload_of(out);
    const std::string text = R"({"event":"chunk","id":"0-0","data":)" + data + "}";
    ASSERT_TRUE(message.ends_with(text)) << size;
    const std::string head = message.substr(0, message.size() - text.size());
    std::string expected = "\x81";
    if (text.size() <= 125) {
      expected += static_cast<char>(text.size());
    } else if (text.size() <= 0xFFFF) {
      expected += {'\x7E', static_cast<char>(text.size() >> 8), static_cast<char>(text.size())};
    } else {
      expected += std::string("\x7F\0\0\0\0\0", 6);
      expected += {static_cast<char>(text.size() >> 16), static_cast<char>(text.size() >> 8),
                   static_cast<char>(text.size())};
    }
    EXPECT_EQ(head, expected) << size;
  }
}

TEST(EventStreamTest, KeepAliveIsNoEvent) {
  std::string text, frames;
  EventStream{text, 1, false}.keep_alive();
  EventStream{frames, 1, true}.keep_alive();
  EXPECT_TRUE(payload_of(text).starts_with(":"));
  EXPECT_EQ(payload_of(frames), std::string("\x89\x00", 2));  // a ping
}

TEST(EventIdTest, ReadsWhatItWrote) {
  const EventId id{1'700'000'000'000, UINT64_MAX};
  const auto read = parse_event_id(format(id));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->run, id.run);
  EXPECT_EQ(read->offset, id.offset);
  EXPECT_EQ(parse_event_id("")->offset, 0U);
}

TEST(EventIdTest, TheLastIsTheEnd) {
  EXPECT_EQ(format({.run = 5, .offset = 7, .ended = true}), "end");
  const auto last = parse_event_id("end");
  ASSERT_TRUE(last);
  EXPECT_TRUE(last->ended);
  EXPECT_EQ(last->run, 0U);
  EXPECT_FALSE(parse_event_id("5-7")->ended);
}

TEST(EventIdTest, WhatIsNoIdIsRefused) {
  for (const char* bad : {"-", "1", "1-", "-1", "1-2-3", " 1-2", "1-2 ", "a-b", "1--2", "+1-2",
                          "99999999999999999999999-1", "1-\n2"}) {
    EXPECT_FALSE(parse_event_id(bad)) << bad;
  }
}

}  // namespace
}  // namespace penstock::queue
