#include "worker/queue/publish/history.h"

#include <gtest/gtest.h>

namespace penstock::queue {
namespace {

constexpr int64_t kStart = 1000 * kNsPerSec;

std::vector<QueueLook> look(uint64_t arrived, uint64_t started, double waited_s) {
  return {{.name = "default",
           .waiting = 3,
           .running = 1,
           .promised_ms = 1200,
           .arrived = arrived,
           .ended = started,
           .completed = started - 1,
           .failed = started / 10,
           .started = started,
           .waited_s = waited_s}};
}

TEST(HistoryTest, ARowTellsWhatCameInItsTime) {
  History history;
  history.advance_to(kStart, 60'000, look(100, 90, 900));
  history.advance_to(kStart + 1, 60'000, look(105, 91, 901));  // not due
  history.advance_to(kStart + History::kStepNs, 120'000, look(122, 110, 918));
  EXPECT_EQ(history.json(kStart + History::kStepNs + 10 * kNsPerSec, 130'000, look(125, 110, 918)),
            R"({"step_seconds":30,"rows":[)"
            R"({"at":120,"seconds":30,"queues":[{"name":"default","waiting":3,"running":1,)"
            R"("in":22,"out":20,"completed":20,"failed":2,"promised_ms":1200,"waited_ms":900}]},)"
            R"({"at":130,"seconds":10,"queues":[{"name":"default","waiting":3,"running":1,)"
            R"("in":3,"out":0,"completed":0,"failed":0,"promised_ms":1200,"waited_ms":null}]}]})");
}

TEST(HistoryTest, WhatIsNotKnownIsNullAndACountThatFellBeganAnew) {
  History history;
  history.advance_to(kStart, 0, look(100, 90, 900));
  std::vector<QueueLook> fresh = look(4, 2, 1);
  fresh[0].promised_ms.reset();
  const std::string json = history.json(kStart, 0, fresh);
  EXPECT_NE(
      json.find(R"("in":4,"out":2,"completed":1,"failed":0,"promised_ms":null,"waited_ms":null)"),
      std::string::npos)
      << json;
}

TEST(HistoryTest, KeepsAnHour) {
  History history;
  for (int i = 0; i < 200; ++i) {
    EXPECT_EQ(history.next_event() <= kStart + i * History::kStepNs, true);
    history.advance_to(kStart + i * History::kStepNs, i * 30'000, {});
  }
  const std::string json = history.json(kStart + 199 * History::kStepNs, 0, {});
  EXPECT_EQ(json.find(R"({"step_seconds":30,"rows":[{"at":2400,)"), 0U) << json;
}

}  // namespace
}  // namespace penstock::queue
