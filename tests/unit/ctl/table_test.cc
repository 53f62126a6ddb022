#include "worker/ctl/table.h"

#include <gtest/gtest.h>

#include "worker/ctl/status_table.h"

namespace penstock::ctl {
namespace {

TEST(TableTest, ColumnsAreAsWideAsTheirWidestCellInCharacters) {
  EXPECT_EQ(render({{"A", "B"}, {"é", "long"}, {"three", ""}}),
            "A      B\n"
            "é      long\n"
            "three\n");
}

TEST(TableTest, TextIsCutAtACharacter) {
  EXPECT_EQ(shortened("éàü", 3), "éàü");
  EXPECT_EQ(shortened("éàüx", 3), "éà…");
  EXPECT_EQ(shortened("abcd", 1), "…");
  EXPECT_EQ(shortened("", 1), "");
}

TEST(TableTest, DurationsHaveTwoUnitsAtMost) {
  EXPECT_EQ(duration(0), "0 s");
  EXPECT_EQ(duration(59), "59 s");
  EXPECT_EQ(duration(60), "1 min");
  EXPECT_EQ(duration(61), "1 min 1 s");
  EXPECT_EQ(duration(3599), "59 min 59 s");
  EXPECT_EQ(duration(7200), "2 h");
  EXPECT_EQ(duration(86400 * 3 + 7199), "3 d 1 h");
  EXPECT_EQ(duration(-5), "-5 s");
}

TEST(StatusTableTest, ShowsQueuesWorkersAndCounters) {
  const auto text = status_table(
      R"({"status":"serving","version":"1.2","pid":7,"uptime_seconds":5,"connections":2,
          "queues":[{"name":"default","state":"open","waiting":1,"max_length":10,"running":2,"slots":4,
                     "predicted_wait_ms":1500,"service_time_us":20400}],
          "workers":[{"name":"demo","state":"ready","pid":null,"last_error":""}],
          "counters":{"accepted":3,"protocol_errors":0}})");
  ASSERT_TRUE(text);
  EXPECT_EQ(
      *text,
      "penstockd is serving, version 1.2, process 7, up 5 s, 2 connections\n\n"
      "QUEUE    STATE  WAITING  OF  RUNNING  SLOTS  WAIT   TAKES\n"
      "default  open   1        10  2        4      1.5 s  20 ms\n\n"
      "WORKER  STATE  QUEUE  MODEL  ENGINE  DEVICE  PID  RUNNING  SLOTS  RESTARTS  LAST ERROR\n"
      "demo    ready  -      -      -       -       -    -        -      -         -\n\n"
      "3 accepted, 0 protocol errors\n");
  EXPECT_FALSE(status_table("status: yaml"));
}

TEST(StatusTableTest, SaysSinceWhenAWorkerIsReadyAndNoErrorThatIsOver) {
  const auto text = status_table(
      R"({"workers":[{"name":"a","state":"ready","ready_seconds":7380,"last_error":"signal 9"},
                     {"name":"b","state":"starting","ready_seconds":null,"last_error":"signal 9"}]})");
  ASSERT_TRUE(text);
  EXPECT_NE(text->find("a       ready for 2 h 3 min  "), std::string::npos) << *text;
  EXPECT_EQ(text->find("signal 9"), text->rfind("signal 9"));
  EXPECT_NE(text->find("b       starting "), std::string::npos) << *text;
}

TEST(StatusTableTest, ALongStateIsCutInItsColumnAndWholeInALineBelow) {
  const std::string why(230, 'x');
  const auto text = status_table(
      R"({"workers":[{"name":"a","state":"ready","ready_seconds":41,"open_slots":0,"why_closed":")" +
      why + R"(","queue":"q"},
                     {"name":"b","state":"idle","queue":"q"}]})");
  ASSERT_TRUE(text);
  const std::string state = "ready for 41 s, 0 of its slots open: ";
  EXPECT_NE(text->find("\na       " + state + std::string(22, 'x') + "…  q "), std::string::npos)
      << *text;
  EXPECT_NE(text->find("\na is " + state + why + "\n"), std::string::npos) << *text;
}

TEST(StatusTableTest, SaysOnceHowEachModelIsAskedInMessages) {
  const auto text = status_table(
      R"({"workers":[{"name":"a#1","model":"a","chat":"chat is asked in the plain form"},
                     {"name":"a#2","model":"a","chat":"chat is asked in the plain form"},
                     {"name":"b","model":"b","chat":null}, {"name":"c","model":"c","chat":"chat is refused: why"}]})");
  ASSERT_TRUE(text);
  const size_t at = text->find("\na: chat is asked in the plain form\nc: chat is refused: why\n\n");
  EXPECT_NE(at, std::string::npos) << *text;
  EXPECT_EQ(text->find("chat is asked"), at + 4) << "once, though two have it";
}

TEST(StatusTableTest, ShowsDevicesAndWhyThereAreNone) {
  const auto text = status_table(
      R"({"devices":[{"device":"0","uuid":"GPU-aa","name":"H100","health":"good","message":null,
                      "utilization_percent":97,"memory_used_bytes":1610612736,"memory_total_bytes":85899345920,
                      "temperature_celsius":61,"power_mw":650400},
                     {"device":"0:1","uuid":"MIG-bb","name":"1g.10gb","health":"lost","message":"GPU is lost",
                      "power_mw":null}],
          "device_watch":{"state":"none","message":"the driver has not answered for 10s"}})");
  ASSERT_TRUE(text);
  EXPECT_NE(
      text->find("\n\n"
                 "DEVICE  NAME     HEALTH             USE   MEMORY           TEMP   POWER  UUID\n"
                 "0       H100     good               97 %  1.5 of 80.0 GiB  61 °C  650 W  GPU-aa\n"
                 "0:1     1g.10gb  lost: GPU is lost  -     -                -      -      MIG-bb\n"
                 "devices: the driver has not answered for 10s\n"),
      std::string::npos)
      << *text;
  const auto none = status_table(
      R"({"devices":[],"device_watch":{"state":"none","message":"no NVIDIA driver: it is not there"}})");
  ASSERT_TRUE(none);
  EXPECT_NE(none->find("\n\ndevices: no NVIDIA driver: it is not there\n\n"), std::string::npos)
      << *none;
  EXPECT_EQ(status_table(R"({"devices":[],"device_watch":{"state":"off","message":null}})")
                ->find("evice"),
            std::string::npos);
}

TEST(StatusTableTest, ShowsWhatBoundsADeviceAndWhy) {
  const auto text = status_table(
      R"({"bounds":[{"device":"0","state":"out","busy":1,"slots":8,"held_bytes":1073741824,
                     "memory_bytes":4294967296,"last_fault":"a hang",
                     "workers":[{"worker":"a","busy":1,"slots":5,"max_slots":8,"held_bytes":1073741824,
                                 "memory_bytes":0,"why":"5 slots: enough"}]},
                    {"device":"cpu of b","state":"good","busy":0,"slots":1,"held_bytes":0,
                     "memory_bytes":0,"last_fault":null,
                     "workers":[{"worker":"b","busy":0,"slots":1,"why":null}]}]})");
  ASSERT_TRUE(text);
  EXPECT_NE(
      text->find("\n\n"
                 "ON DEVICE  WORKER  STATE  RUNNING  SLOTS  HOLDS           WHY\n"
                 "0          all     out    1        8      1.0 of 4.0 GiB  a hang\n"
                 "0          a       -      1        5      -               5 slots: enough\n\n"),
      std::string::npos)
      << *text;
}

TEST(StatusTableTest, ShowsWhatIsPausedAndWhatIsOnDisk) {
  const auto text = status_table(
      R"({"queues":[{"name":"default","state":"open","paused":true}],
          "state":{"dead_letters":3,"bytes":1572864,"max_bytes":1073741824,"error":"no room"}})");
  ASSERT_TRUE(text);
  EXPECT_NE(text->find("\ndefault  open, paused  "), std::string::npos) << *text;
  EXPECT_NE(text->find("\n3 dead letters, 1.5 of 1024 MiB on disk, no room\n"), std::string::npos);
}

}  // namespace
}  // namespace penstock::ctl
