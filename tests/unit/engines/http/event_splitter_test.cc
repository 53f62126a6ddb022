#include "worker/engines/http/event_splitter.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock::http_engine {
namespace {

struct Seen : EventSplitter::Listener {
  struct Each {
    std::string bytes;
    std::string data;
    std::string type;
    bool has_data;
    bool whole;
    bool is_error;
  };
  std::vector<Each> events;
  size_t most = SIZE_MAX;

  bool on_event(const Event& event) override {
    events.push_back({std::string(event.bytes), std::string(event.data), std::string(event.type),
                      event.has_data, event.whole, event.is_error});
    return events.size() < most;
  }
  std::vector<std::string> data() const {
    std::vector<std::string> all;
    for (const Each& each : events) {
      if (each.has_data) {
        all.push_back(each.data);
      }
    }
    return all;
  }
  std::string bytes() const {
    std::string all;
    for (const Each& each : events) {
      all += each.bytes;
    }
    return all;
  }
};

using Data = std::vector<std::string>;
constexpr auto kEvents = EventSplitter::Format::kEvents;
constexpr auto kLines = EventSplitter::Format::kLines;

Seen split(EventSplitter::Format format, std::string_view text, size_t piece = SIZE_MAX) {
  Seen seen;
  EventSplitter splitter(format, seen);
  for (size_t at = 0; at < text.size(); at += piece) {
    splitter.feed(text.substr(at, piece));
    piece = std::min(piece, text.size());
  }
  splitter.end();
  return seen;
}

TEST(EventSplitterTest, EventsAreTheSameWhereverTheyAreCut) {
  const std::string text =
      "\xEF\xBB\xBF"
      "data: a\r\rdata:b\n\r\n: comment\n\ndata: c\r\ndata: d\r\n\r\nevent: e\nid: 1\n\n"
      "data: \xF0\x9F\x98\x80\n\nevent: x\ndata\n\ndata: [DONE]\n\n";
  const Data wanted = {"a", "b", "c\nd", "\xF0\x9F\x98\x80", "", "[DONE]"};
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    const Seen seen = split(kEvents, text, piece);
    EXPECT_EQ(seen.data(), wanted) << piece;
    EXPECT_EQ(seen.bytes(), text) << piece;
  }
}

TEST(EventSplitterTest, AnEventEndsWithItsBytesBeforeTheNextBegins) {
  const Seen seen = split(kEvents, "data: a\n\ndata: b\n\n");
  ASSERT_EQ(seen.events.size(), 2U);
  EXPECT_EQ(seen.events[0].bytes, "data: a\n\n");
  EXPECT_EQ(seen.events[1].bytes, "data: b\n\n");
}

TEST(EventSplitterTest, AnEventIsToldBeforeTheLineFeedOfItsLastCarriageReturnComes) {
  Seen seen;
  EventSplitter splitter(kEvents, seen);
  splitter.feed("data: a\r\n\r");
  EXPECT_EQ(seen.data(), Data{"a"});
  splitter.feed("\ndata: b\r\r");
  EXPECT_EQ(seen.data(), (Data{"a", "b"}));
}

TEST(EventSplitterTest, TheLastEventCountsWithoutItsEmptyLine) {
  EXPECT_EQ(split(kEvents, "data: a\n\ndata: b").data(), (Data{"a", "b"}));
}

TEST(EventSplitterTest, TypesAndFieldsCalledErrorAreTold) {
  const Seen seen = split(kEvents, "event: ping\ndata: {}\n\nerror: {\"code\":400}\n\n");
  EXPECT_EQ(seen.events[0].type, "ping");
  EXPECT_EQ(seen.events[1].data, "{\"code\":400}");
  EXPECT_TRUE(seen.events[1].is_error);
  EXPECT_EQ(seen.events[1].type, "");
}

TEST(EventSplitterTest, AnEventThatIsTooLongPassesInPartsAndTheNextIsRead) {
  const std::string text = "data: a\n\ndata: " + std::string(300'000, 'x') + "\n\ndata: b\n\n";
  const Seen seen = split(kEvents, text, 1000);
  EXPECT_EQ(seen.bytes(), text);
  EXPECT_EQ(seen.events.front().data, "a");
  EXPECT_EQ(seen.events.back().data, "b");
  for (const Seen::Each& each : seen.events) {
    EXPECT_LE(each.bytes.size(), EventSplitter::kMaxHeldBytes + 1000);
    EXPECT_EQ(each.whole, each.bytes.size() < 100 && each.bytes.starts_with("data: "))
        << each.bytes;
  }
}

TEST(EventSplitterTest, EachJsonLineIsAnEvent) {
  const Seen seen = split(kLines, "{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}", 3);
  EXPECT_EQ(seen.data(), (Data{"{\"a\":1}", "{\"b\":2}\r", "{\"c\":3}"}));
  EXPECT_EQ(seen.bytes(), "{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}");
}

TEST(EventSplitterTest, NothingMoreIsToldToWhoWantsNoMore) {
  Seen seen;
  seen.most = 1;
  EventSplitter splitter(kEvents, seen);
  EXPECT_FALSE(splitter.feed("data: a\n\ndata: b\n\n"));
  EXPECT_FALSE(splitter.feed("data: c\n\n"));
  splitter.end();
  EXPECT_EQ(seen.data(), Data{"a"});
}

}  // namespace
}  // namespace penstock::http_engine
