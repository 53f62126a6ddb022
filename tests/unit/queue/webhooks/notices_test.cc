// An operator's hooks, with real programs; the store is the test's.
#include "worker/queue/webhooks/notices.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "shared/base/fd.h"

namespace penstock::queue {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNowMs = 1'763'780'000'000;

class NoticesTest : public testing::Test {
 protected:
  NoticesTest() {
    fs::create_directories(folder_);
    notices_.advance_to(now_ns_, kNowMs);
  }
  ~NoticesTest() override { fs::remove_all(folder_); }

  // A hook that runs this script.
  HookConfig script(const std::string& text, const std::string& name = "tell") {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    fs::permissions(path, fs::perms::owner_all);
    HookConfig hook;
    hook.name = name;
    hook.on = 1U << static_cast<unsigned>(NoticeEvent::kFailed);
    hook.command = {path, folder_};
    return hook;
  }
  void apply(const HookConfig& hook) { notices_.apply({hook}); }
  static NoticeFields fields(const std::string& label = "a label") {
    return {"failed",     "job_1",         "failed", "default", "sim", label,
            "It failed.", "engine_failed", "3",      "10",      "",    "30"};
  }
  // The store keeps what is to be told of a failed job.
  JobId fails(const std::string& label = "a label") {
    const JobId id = ids_.make(kNowMs);
    for (Notice& each : notices_.of(JobStatus::kFailed, false, fields(label), "{\"a\":1}")) {
      stored_.push_back({{.id = id,
                          .hook = each.hook,
                          .made_ms = kNowMs,
                          .fields = each.fields,
                          .json = each.json},
                         kNowMs});
    }
    notices_.added();
    return id;
  }
  void advance(int64_t ns = 0) {
    now_ns_ += ns;
    notices_.advance_to(now_ns_, kNowMs + now_ns_ / kNsPerMs);
  }
  // Until so many tries were made in all.
  void wait(size_t tries) {
    for (int i = 0; i < 2000 && tries_.size() < tries; ++i) {
      loop_.run_once(0, 10 * kNsPerMs);
      notices_.reap();
      advance();
    }
    ASSERT_EQ(tries_.size(), tries);
  }
  std::string file(const std::string& name) const {
    std::ifstream in(folder_ + "/" + name);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  bool wait_for_file(const std::string& name) const {
    for (int i = 0; i < 2000 && file(name).empty(); ++i) {
      loop_.run_once(0, 10 * kNsPerMs);
    }
    return !file(name).empty();
  }

  struct Stored {
    DueNotice notice;
    int64_t due_ms;
  };
  struct Try {
    uint32_t tries;
    int64_t due_ms;  // 0: over
  };
  std::string folder_ = fs::temp_directory_path() / ("notices." + std::to_string(::getpid()));
  mutable EventLoop loop_ = *EventLoop::create();
  JobIdMaker ids_;
  int64_t now_ns_ = 0;
  std::vector<Stored> stored_;
  std::vector<Try> tries_;
  std::vector<std::string> kept_;
  bool writes_ = true;  // else what comes of tries does not come to the disk
  std::vector<std::function<void()>> unwritten_;
  Notices notices_{
      loop_,
      {.due =
           [this](const NoticeQuery& query, auto told) {
             NoticePage page;
             for (const Stored& each : stored_) {
               if (each.notice.hook == query.hook && each.due_ms <= query.until_ms &&
                   page.due.size() < query.limit) {
                 page.due.push_back(each.notice);
               } else if (each.notice.hook == query.hook && each.due_ms > query.until_ms) {
                 page.next_ms = each.due_ms;
               }
             }
             told(page);
           },
       .tried =
           [this](const DueNotice& notice, uint32_t tries, int64_t due_ms, auto on_done) {
             tries_.push_back({tries, due_ms});
             if (!writes_) {
               return unwritten_.push_back(on_done);
             }
             std::erase_if(stored_, [&](Stored& each) {
               const bool same = each.notice.id == notice.id;
               each.notice.tries = same ? tries : each.notice.tries;
               each.due_ms = same ? due_ms : each.due_ms;
               return same && due_ms == 0;
             });
             on_done();
           },
       .keep = [this](auto names) { kept_ = names; }},
      1};
};

TEST_F(NoticesTest, AProgramReadsTheJsonAndHasTheFieldsAsVariables) {
  apply(script("cat > $1/json; env > $1/env.new; mv $1/env.new $1/env"));
  fails("two\nlines; $(touch " + folder_ + "/shell)");
  advance();
  wait(1);
  EXPECT_EQ(tries_[0].due_ms, 0);
  EXPECT_EQ(file("json"), "{\"a\":1}");
  const std::string variables = file("env");
  for (const char* const each :
       {"PENSTOCK_EVENT=failed\n", "PENSTOCK_JOB_ID=job_1\n", "PENSTOCK_ERROR_CODE=engine_failed\n",
        "PENSTOCK_ATTEMPTS=3\n", "PENSTOCK_STARTED_AT=\n", "PENSTOCK_LABEL=two\nlines; $("}) {
    EXPECT_NE(variables.find(each), std::string::npos) << each << "\n" << variables;
  }
  EXPECT_FALSE(fs::exists(folder_ + "/shell")) << "no shell reads what others said";
  EXPECT_EQ(notices_.outcomes().delivered, 1U);
}

// Two hosts may have made ids in the same millisecond.
TEST_F(NoticesTest, TwoJobsOfOneNumberAreBothTold) {
  apply(script("cat > /dev/null"));
  const JobId first = fails();
  Ulid ulid = ulid_of(first);
  ++ulid.low;
  stored_.push_back(stored_.back());
  stored_.back().notice.id = id_of(ulid);
  advance();
  wait(2);
  EXPECT_TRUE(stored_.empty());
}

TEST_F(NoticesTest, OnlyWhatAHookWantsIsToldIt) {
  HookConfig hook = script("true");
  hook.on = 1U << static_cast<unsigned>(NoticeEvent::kDead);
  apply(hook);
  EXPECT_EQ(kept_, std::vector<std::string>{"tell"});
  EXPECT_TRUE(notices_.of(JobStatus::kFailed, false, fields(), "").empty());
  EXPECT_TRUE(notices_.of(JobStatus::kCompleted, false, fields(), "").empty());
  EXPECT_EQ(notices_.of(JobStatus::kFailed, true, fields(), "").size(), 1U);
}

TEST_F(NoticesTest, WhatFailsIsTriedAgainLaterAndGivenUpAtLast) {
  HookConfig hook = script("echo no; exit 3");
  hook.tries = 3;
  apply(hook);
  fails();
  advance();
  wait(1);
  EXPECT_GE(tries_[0].due_ms, kNowMs + 4500);
  EXPECT_LE(tries_[0].due_ms, kNowMs + 5500);
  advance(4 * kNsPerSec);
  EXPECT_EQ(notices_.next_event(), (tries_[0].due_ms - kNowMs) * kNsPerMs);
  advance(2 * kNsPerSec);
  wait(2);
  EXPECT_GE(tries_[1].due_ms, kNowMs + 6000 + 270'000);
  advance(400 * kNsPerSec);
  advance();
  wait(3);
  EXPECT_EQ(tries_[2].tries, 3U);
  EXPECT_EQ(tries_[2].due_ms, 0);
  EXPECT_EQ(notices_.outcomes().retried, 2U);
  EXPECT_EQ(notices_.outcomes().given_up, 1U);
}

TEST_F(NoticesTest, AProgramThatHangsIsKilledWithAllThatItStarted) {
  HookConfig hook = script("sleep 1000 & echo $! > $1/pid.new; mv $1/pid.new $1/pid; wait");
  hook.timeout_ns = kNsPerSec;
  apply(hook);
  fails();
  advance();
  ASSERT_TRUE(wait_for_file("pid"));
  const pid_t grandchild = std::stoi(file("pid"));
  EXPECT_EQ(::kill(grandchild, 0), 0);
  EXPECT_EQ(notices_.next_event(), kNsPerSec);
  advance(kNsPerSec);
  wait(1);
  EXPECT_NE(tries_[0].due_ms, 0) << "it is tried again";
  for (int i = 0; i < 2000 && ::kill(grandchild, 0) == 0; ++i) {
    loop_.run_once(0, kNsPerMs);  // whoever adopts it reaps it
    std::ifstream stat("/proc/" + std::to_string(grandchild) + "/stat");
    std::string pid, name, state;
    stat >> pid >> name >> state;
    if (state == "Z") {
      break;
    }
  }
  std::ifstream stat("/proc/" + std::to_string(grandchild) + "/stat");
  std::string pid, name, state;
  stat >> pid >> name >> state;
  EXPECT_TRUE(state.empty() || state == "Z") << state;
}

TEST_F(NoticesTest, AProgramThatSaysMuchIsHeardAndCut) {
  apply(
      script("i=0; while [ $i -lt 2000 ]; do echo 0123456789012345678901234567890123456789012345678"
             "901234567890123456789012345678901234567890123456789; i=$((i+1)); done; exit 0"));
  fails();
  advance();
  wait(1);
  EXPECT_EQ(tries_[0].due_ms, 0) << "it did not hang, as it was read to its end";
}

TEST_F(NoticesTest, AProgramThatCannotBeStartedIsTriedAgain) {
  HookConfig hook = script("true");
  hook.command = {folder_ + "/none"};
  apply(hook);
  fails();
  advance();
  ASSERT_EQ(tries_.size(), 1U);
  EXPECT_NE(tries_[0].due_ms, 0);
}

TEST_F(NoticesTest, SoManyRunAtOnce) {
  HookConfig hook = script("echo $$ >> $1/started; while [ ! -e $1/go ]; do sleep 0.01; done");
  hook.at_once = 2;
  apply(hook);
  for (int i = 0; i < 5; ++i) {
    fails();
  }
  advance();
  const auto started = [this] {
    const std::string pids = file("started");
    return std::count(pids.begin(), pids.end(), '\n');
  };
  for (int i = 0; i < 10'000 && started() < 2; ++i) {
    loop_.run_once(0, kNsPerMs);
    advance();
  }
  EXPECT_EQ(started(), 2);
  std::ofstream(folder_ + "/go") << "go";
  wait(5);
  EXPECT_EQ(notices_.outcomes().delivered, 5U);
}

TEST_F(NoticesTest, WhatWasToldIsNotToldAgainWhileTheDiskTakesNoWrites) {
  HookConfig hook = script("echo told >> $1/told");
  hook.at_once = 2;
  apply(hook);
  writes_ = false;
  for (int i = 0; i < 3; ++i) {
    fails();
  }
  advance();
  wait(2);
  for (int i = 0; i < 3; ++i) {
    notices_.added();
    advance(61 * kNsPerSec);
  }
  hook.timeout_ns = 7 * kNsPerSec;
  apply(hook);  // nor by another configuration
  advance(61 * kNsPerSec);
  EXPECT_EQ(notices_.next_event(), INT64_MAX) << "both places are taken, and nothing runs";
  EXPECT_EQ(file("told"), "told\ntold\n");
  stored_.erase(stored_.begin(), stored_.begin() + 2);
  writes_ = true;
  for (const auto& on_done : unwritten_) {
    on_done();
  }
  advance();
  wait(3);
  EXPECT_EQ(file("told"), "told\ntold\ntold\n");
}

TEST_F(NoticesTest, WhoseHookIsGoneIsEndedAndToldNoMore) {
  apply(script("echo $$ > $1/pid.new; mv $1/pid.new $1/pid; sleep 1000"));
  fails();
  advance();
  ASSERT_TRUE(wait_for_file("pid"));
  const pid_t program = std::stoi(file("pid"));
  notices_.apply({});
  EXPECT_TRUE(kept_.empty());
  for (int i = 0; i < 2000 && ::kill(program, 0) == 0; ++i) {
    loop_.run_once(0, kNsPerMs);
    notices_.reap();
  }
  EXPECT_NE(::kill(program, 0), 0) << "killed, and reaped";
  EXPECT_TRUE(tries_.empty());
  EXPECT_FALSE(notices_.wanted());
}

TEST_F(NoticesTest, APostWhoseHookIsGoneIsEnded) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  HookConfig hook = script("true");
  hook.command.clear();
  hook.url = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
  hook.timeout_ns = 60 * kNsPerSec;
  apply(hook);
  fails();
  advance();
  const Fd connection(::accept(listener.get(), nullptr, nullptr));
  notices_.apply({});
  char bytes[4096];
  ssize_t count = 1;
  for (pollfd ready{connection.get(), POLLIN, 0}; count > 0 && ::poll(&ready, 1, 5000) == 1;) {
    count = ::recv(connection.get(), bytes, sizeof bytes, 0);
  }
  EXPECT_LE(count, 0) << "its connection is closed";
}

TEST_F(NoticesTest, AnotherConfigurationTriesAnew) {
  apply(script("echo $$ > $1/pid.new; mv $1/pid.new $1/pid; sleep 1000"));
  fails();
  advance();
  ASSERT_TRUE(wait_for_file("pid"));
  apply(script("echo told > $1/second", "other"));
  HookConfig hook = script("echo told > $1/second");
  apply(hook);
  advance();
  wait(1);
  EXPECT_EQ(file("second"), "told\n");
}

}  // namespace
}  // namespace penstock::queue
