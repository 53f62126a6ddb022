// The engine with real programs, in Python or shell.
#include "worker/engines/process/engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/unit/pool/recording_sink.h"

namespace penstock::process {
namespace {

namespace fs = std::filesystem;

// Says what it must, and then reads jobs.
constexpr const char* kHello = R"(
import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(penstock=1)
say(ready=True)
def lines():
    for line in sys.stdin: yield json.loads(line)
def jobs():
    for line in lines():
        if "job" in line: yield line
)";

// Remembers how many slots there were when a job ended.
struct OrderedSink : test::RecordingSink {
  void failed(JobNumber job, const Failure& failure) override {
    RecordingSink::failed(job, failure);
    slots_then.push_back(openings.back().slots);
  }
  std::vector<uint32_t> slots_then;
};

class ProcessEngineTest : public ::testing::Test {
 protected:
  ProcessEngineTest() {
    std::string path = "/tmp/penstock-process-XXXXXX";
    home_ = ::mkdtemp(path.data());
    ::chmod(home_.c_str(), 0755);
    fs::create_directory(home_ + "/scratch");
    ::chmod((home_ + "/scratch").c_str(), 0755);
    options_.folder = home_ + "/scratch";
    options_.grace_ns = 200 * kNsPerMs;
  }
  ~ProcessEngineTest() override {
    engine_.reset();
    EXPECT_TRUE(fs::is_empty(options_.folder)) << "scratch is left behind";
    fs::remove_all(home_);
  }

  void open(const std::string& python, uint32_t slots = 1) {
    std::ofstream(home_ + "/program.py") << kHello << python;
    options_.command = {"/usr/bin/python3", home_ + "/program.py"};
    start(slots);
  }
  void start(uint32_t slots = 1) {
    auto engine = ProcessEngine::open(options_, "test", slots, sink_,
                                      [this](LogLevel level, std::string_view text) {
                                        log_ += level == LogLevel::kInfo ? "info" : "trouble";
                                        log_.append(": ").append(text).append("\n");
                                      });
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
  }

  // Steps whenever the engine wants to be stepped, until that is so.
  void run_until(const std::function<bool()>& so, int64_t most_ns = 20 * kNsPerSec) {
    const int64_t end_ns = monotonic_ns() + most_ns;
    for (int64_t now_ns = monotonic_ns(); !so(); now_ns = monotonic_ns()) {
      ASSERT_LT(now_ns, end_ns) << log_;
      const int64_t due_ns = std::min(engine_->step(now_ns), end_ns);
      pollfd ready{engine_->wake_fd(), POLLIN, 0};
      const int64_t wait_ns = std::max<int64_t>(due_ns - monotonic_ns(), 0);
      if (!so()) {
        ::poll(&ready, 1, static_cast<int>(wait_ns / kNsPerMs) + (wait_ns > 0 ? 1 : 0));
      }
    }
  }
  void run_until_open(uint32_t slots = 1) {
    run_until([&] { return !sink_.openings.empty() && sink_.openings.back().slots == slots; });
  }
  void submit(JobNumber job, std::string_view body, std::string_view override = "") {
    Request request{.method = "POST",
                    .path = "/v1/x",
                    .content_type = "application/json",
                    .model = "m",
                    .body = body,
                    .override = override};
    auto plan = engine_->admit(request);
    engine_->start(job, std::get<std::unique_ptr<Plan>>(std::move(plan)));
  }
  void run_to_end(size_t ends = 1) {
    run_until([&] { return sink_.usages.size() + sink_.failures.size() == ends; });
  }
  // One job from its beginning to its end, alone.
  std::string answer(std::string_view body, std::string_view override = "") {
    run_until_open();
    sink_.body.clear();
    submit(++jobs_, body, override);
    run_to_end(jobs_);
    return sink_.body;
  }

  std::string home_;
  Options options_;
  OrderedSink sink_;
  std::string log_;
  std::unique_ptr<Engine> engine_;
  JobNumber jobs_ = 0;
};

TEST_F(ProcessEngineTest, AJobIsToldWholeInOneLine) {
  open(R"(
for job in jobs():
    job["folder"] = os.path.samefile(job["folder"], ".")
    say(result={"body": json.dumps(job, sort_keys=True)})
)");
  EXPECT_EQ(answer("a\n\"\xC3\xBC", "{\"max_tokens\":\n5}"),
            "{\"body\": \"a\\n\\\"\\u00fc\", \"content_type\": \"application/json\", "
            "\"deadline_ms\": 3600000, \"folder\": true, \"job\": 1, \"method\": \"POST\", "
            "\"model\": \"m\", \"override\": {\"max_tokens\": 5}, \"path\": \"/v1/x\"}");
}

TEST_F(ProcessEngineTest, ALargeBodyAndOneThatIsNoTextAreFiles) {
  open(R"(
for job in jobs():
    body = open(job["body_file"], "rb").read()
    say(result={"body": "%d %d" % (len(body), sum(body))})
)");
  EXPECT_EQ(answer(std::string(3'000'000, '\1')), "3000000 3000000");
  EXPECT_EQ(answer("\xff\xfe"), "2 509");
}

TEST_F(ProcessEngineTest, AFolderIsEmptyForEachJob) {
  open(R"(
for job in jobs():
    found = os.listdir(job["folder"])
    os.makedirs("a/b"); open("a/b/c", "w").close(); os.symlink("/", "root")
    open(os.environ["TMPDIR"] + "/kept", "a").write("x")
    say(result={"body": "%s %s" % (found, open(os.environ["TMPDIR"] + "/kept").read())})
)");
  EXPECT_EQ(answer(""), "[] x");
  EXPECT_EQ(answer(""), "[] xx");
}

TEST_F(ProcessEngineTest, ALargeResultIsSentFromItsFileWhileItsReaderReads) {
  open(R"(
for job in jobs():
    open("big", "wb").write(b"0123456789" * 1000000)
    say(result={"type": "video/mp4", "file": "big"}, usage={"prompt_tokens": 1})
)");
  run_until_open();
  submit(1, "");
  run_until([&] { return !sink_.body.empty(); });
  engine_->pause(1);
  const size_t before = sink_.body.size();
  engine_->step(monotonic_ns());
  EXPECT_EQ(sink_.body.size(), before);
  EXPECT_TRUE(sink_.usages.empty());
  engine_->resume(1);
  run_to_end();
  EXPECT_EQ(sink_.body.size(), 10'000'000U);
  EXPECT_EQ(sink_.heads[0].content_type, "video/mp4");
  EXPECT_EQ(sink_.heads[0].content_length, 10'000'000);
  EXPECT_GT(sink_.usages[0].device_ns, 0U);
}

TEST_F(ProcessEngineTest, AProgramWhoseReaderIsSlowIsNotReadEither) {
  open(R"(
for job in jobs():
    for i in range(4000): say(chunk="x" * 1000)
    say(result={})
)");
  run_until_open();
  submit(1, "");
  run_until([&] { return !sink_.body.empty(); });
  engine_->pause(1);
  const size_t before = sink_.body.size();
  for (int i = 0; i < 50; ++i) {
    pollfd ready{engine_->wake_fd(), POLLIN, 0};
    ::poll(&ready, 1, 1);
    engine_->step(monotonic_ns());
  }
  EXPECT_EQ(sink_.body.size(), before);
  engine_->resume(1);
  run_to_end();
  EXPECT_EQ(sink_.body.size(), 4'000'000U);
}

TEST_F(ProcessEngineTest, ACancelThatTheProgramObeysKeepsIt) {
  open(R"(
for line in lines():
    if "job" in line: job = line["job"]; say(progress=0)
    elif line["cancel"] == job: say(error={"code": "cancelled", "message": str(os.getpid())})
    if "job" in line and line["body"] == "pid": say(result={"body": str(os.getpid())})
)");
  const std::string pid = answer("pid");
  submit(7, "");
  run_until([&] { return sink_.fractions.size() == 2; });
  EXPECT_FALSE(engine_->cancel(7));
  run_until([&] { return !sink_.gone.empty(); });
  EXPECT_EQ(sink_.gone, std::vector<JobNumber>{7});
  EXPECT_TRUE(sink_.failures.empty());
  EXPECT_EQ(answer("pid"), pid);
}

TEST_F(ProcessEngineTest, AJobThatHasNotBegunLeavesAtOnce) {
  open("for job in jobs(): pass");
  run_until_open();
  submit(1, "");
  EXPECT_TRUE(engine_->cancel(1));
  EXPECT_TRUE(engine_->cancel(99));
}

// The caller of the second job must not see what the first one's program still had to say.
TEST_F(ProcessEngineTest, WhatAProgramSaysOfAJobThatIsOverIsNobodysAnswer) {
  open(R"(
for job in jobs():
    if job["body"] == "first":
        say(chunk="x" * 2000000)
        time.sleep(0.1)
        say(chunk="secret of the first")
        say(result={"body": "first"})
    else: say(result={"body": "second"})
)");
  EXPECT_EQ(answer("first"), "");
  ASSERT_EQ(sink_.failures.size(), 1U);
  EXPECT_FALSE(sink_.failures[0].retryable);
  EXPECT_EQ(answer("other"), "second");
}

TEST_F(ProcessEngineTest, AProgramThatDoesNotComeBackFromAJobThatIsOverIsStartedAgain) {
  open(R"(
for job in jobs():
    if job["body"] == "first":
        say(chunk="x" * 2000000)
        time.sleep(60)
    say(result={"body": "second"})
)");
  EXPECT_EQ(answer("first"), "");
  EXPECT_EQ(answer("other"), "");
  ASSERT_EQ(sink_.failures.size(), 2U);
  EXPECT_TRUE(sink_.failures[1].returned);
  EXPECT_EQ(sink_.slots_then[1], 0U) << "closed before it comes back";
  EXPECT_EQ(answer("other"), "second");
}

TEST_F(ProcessEngineTest, AnAnswerThatNobodyAskedForIsNobodysAnswer) {
  open(R"(
for job in jobs():
    say(result={"body": job["body"]})
    say(result={"body": "once more"})
)");
  EXPECT_EQ(answer("one"), "one");
  EXPECT_EQ(answer("two"), "two");
  EXPECT_NE(log_.find("gave an answer that nobody has asked for"), log_.npos) << log_;
}

TEST_F(ProcessEngineTest, WhatIsSaidOfAnotherJobIsPassedOver) {
  open(R"(
for job in jobs():
    say(job=job["job"] + 5, chunk="of another")
    say(job=job["job"], result={"body": "mine"})
)");
  EXPECT_EQ(answer(""), "mine");
}

TEST_F(ProcessEngineTest, NothingIsInheritedButWhatIsNamed) {
  ::setenv("PENSTOCK_TEST_SECRET", "x", 1);
  ::setenv("CUDA_VISIBLE_DEVICES", "3", 1);
  options_.environment = {"LANG=de_DE.UTF-8", "MODEL=a b"};
  open(R"(
for job in jobs():
    say(result={"body": " ".join(sorted(set(os.environ) - {"LC_CTYPE"})) + "; " +
        os.environ["LANG"] + "; " + os.environ["MODEL"] + "; " + os.environ["CUDA_VISIBLE_DEVICES"]})
)");
  EXPECT_EQ(answer(""), "CUDA_VISIBLE_DEVICES HOME LANG MODEL PATH TMPDIR; de_DE.UTF-8; a b; 3");
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST_F(ProcessEngineTest, ItHasNoDescriptorButItsThreeAndNoSignalIsBlocked) {
  const Fd stray(::fcntl(STDERR_FILENO, F_DUPFD, 50));  // that somebody forgot to close on exec
  open(R"(
import signal
for job in jobs():
    fds = [int(fd) for fd in os.listdir("/proc/self/fd")]
    say(result={"body": "%s %s" % ([fd for fd in fds if fd < 3], signal.pthread_sigmask(signal.SIG_BLOCK, []))
        + str([os.readlink("/proc/self/fd/%d" % fd) for fd in fds if fd > 2 and os.path.exists("/proc/self/fd/%d" % fd)])
        + ", its guard: %s" % sorted(int(fd) for fd in os.listdir("/proc/%d/fd" % os.getppid()))})
)");
  EXPECT_EQ(answer(""), "[0, 1, 2] set()[], its guard: [0, 1, 2, 3, 7]");
}

TEST_F(ProcessEngineTest, AnotherUserRunsItInAFolderOfItsOwn) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  options_.user = "nobody";
  open(R"(
for job in jobs():
    open("out", "w").write("made by %d, groups %s; %s" % (os.getuid(), os.getgroups(),
        open(job["body_file"]).read()[:4]))
    say(result={"file": job["folder"] + "/out"})
)");
  const passwd* const nobody = ::getpwnam("nobody");
  EXPECT_EQ(answer(std::string(100'000, 'b')), "made by " + std::to_string(nobody->pw_uid) +
                                                   ", groups [" + std::to_string(nobody->pw_gid) +
                                                   "]; bbbb");
}

TEST_F(ProcessEngineTest, AUserWhomNobodyKnowsIsNamed) {
  options_.user = "nobody-of-this-name";
  options_.command = {"/bin/true"};
  auto engine = ProcessEngine::open(options_, "test", 1, sink_, [](auto, auto) {});
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().message, "there is no user \"nobody-of-this-name\"");
}

TEST_F(ProcessEngineTest, AProgramThatTakesMoreMemoryThanItMayIsKilledWithItsChildren) {
  options_.memory_limit_bytes = 100 << 20;
  open(R"(
for job in jobs():
    if job["body"] == "much":
        if os.fork() == 0:
            os.setsid(); held = bytearray(150 << 20); time.sleep(60)
        time.sleep(60)
    say(result={"body": "little"})
)");
  EXPECT_EQ(answer("much"), "");
  ASSERT_EQ(sink_.failures.size(), 1U);
  EXPECT_TRUE(sink_.failures[0].retryable);
  EXPECT_FALSE(sink_.failures[0].returned);
  EXPECT_NE(log_.find("memory_limit is 104857600"), log_.npos) << log_;
  EXPECT_EQ(answer("a bit"), "little");
}

TEST_F(ProcessEngineTest, AProgramThatFillsTheDiskIsKilledAndItsFilesAreGone) {
  options_.max_scratch_bytes = 10 << 20;
  open(R"(
for job in jobs():
    found = os.listdir(".")
    if job["body"] == "much":
        for i in range(20): open("f%d" % i, "wb").write(b"x" * (1 << 20))
        time.sleep(60)
    say(result={"body": str(found)})
)");
  EXPECT_EQ(answer("much"), "");
  ASSERT_EQ(sink_.failures.size(), 1U);
  EXPECT_TRUE(sink_.failures[0].retryable);
  EXPECT_NE(log_.find("max_scratch is 10485760"), log_.npos) << log_;
  EXPECT_EQ(answer("little"), "[]");
}

TEST_F(ProcessEngineTest, AnAnswerThatIsTooLongEndsOnceTheProgramIsBack) {
  options_.max_result_bytes = 2500;
  open(R"(
for line in lines():
    if "job" in line:
        for i in range(5): say(chunk="x" * 1000)
    else: say(error={"code": "cancelled"})
)");
  EXPECT_EQ(answer(""), std::string(2000, 'x'));
  ASSERT_EQ(sink_.failures.size(), 1U);
  EXPECT_EQ(sink_.failures[0].message, "The answer has more than 2500 bytes.");
  EXPECT_EQ(sink_.openings.back().slots, 1U);
}

TEST_F(ProcessEngineTest, AProgramThatClosesItsOutputIsEnded) {
  open(R"(
for job in jobs():
    os.close(1)
    time.sleep(60)
)");
  EXPECT_EQ(answer(""), "");
  ASSERT_EQ(sink_.failures.size(), 1U);
  EXPECT_TRUE(sink_.failures[0].retryable);
  EXPECT_NE(log_.find("has closed its standard output"), log_.npos) << log_;
}

TEST_F(ProcessEngineTest, AProgramOfAnotherVersionOrWithoutAFirstLineIsNotReady) {
  options_.command = {"/bin/sh", "-c", "echo '{\"penstock\":2}'; sleep 60"};
  start();
  run_until([&] { return log_.find("speaks version 2") != log_.npos; });
  engine_.reset();
  options_.command = {"/bin/sh", "-c", "echo '{\"ready\":true}'; sleep 60"};
  start();
  run_until([&] { return log_.find("ready before its first line") != log_.npos; });
  engine_.reset();
  options_.ready_timeout_ns = 50 * kNsPerMs;
  options_.command = {"/bin/sleep", "60"};
  start();
  run_until([&] { return log_.find("ready_timeout of 50ms") != log_.npos; });
  EXPECT_EQ(sink_.openings.back().slots, 0U);
}

TEST_F(ProcessEngineTest, AProgramThatIsNotThereIsNamedAndTriedAgain) {
  options_.command = {"/no/such/program"};
  start();
  run_until([&] { return sink_.openings.size() >= 4; });
  EXPECT_NE(log_.find("/no/such/program: No such file or directory"), log_.npos) << log_;
  EXPECT_TRUE(sink_.openings.back().out);
  submit(1, "");
  engine_->step(monotonic_ns());
  ASSERT_EQ(sink_.failures.size(), 1U);
  EXPECT_TRUE(sink_.failures[0].returned);
}

TEST_F(ProcessEngineTest, SlotsAreProgramsOfTheirOwn) {
  open(R"(
for job in jobs():
    say(chunk="%d " % os.getpid())
    if job["body"] == "die": os._exit(1)
    say(result={})
)",
       2);
  run_until_open(2);
  submit(1, "die");
  submit(2, "");
  run_to_end(2);
  EXPECT_EQ(sink_.usages.size(), 1U);
  EXPECT_EQ(sink_.failures.size(), 1U);
  EXPECT_EQ(sink_.openings.back().slots, 1U);
  run_until_open(2);
}

TEST_F(ProcessEngineTest, AProgramThatEndsAfterEachJobIsStartedAtOnce) {
  open("job = next(jobs()); say(result={'body': 'done'})");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(answer(""), "done");
    run_until([&] { return sink_.openings.back().slots == 0; });
  }
  EXPECT_EQ(log_.find("starts again in"), log_.npos) << log_;
}

TEST_F(ProcessEngineTest, ItsStandardErrorIsLoggedWithTheJobAndBounded) {
  open(R"(
for job in jobs():
    for i in range(500): print("\x1b[31mline", i, file=sys.stderr)
    sys.stderr.flush(); time.sleep(0.05)
    say(result={})
)");
  answer("");
  EXPECT_NE(log_.find("info: slot 0, job 1: stderr: "), log_.npos) << log_;
  EXPECT_NE(log_.find("lines like these were left out: the log is bounded"), log_.npos);
  EXPECT_LT(std::count(log_.begin(), log_.end(), '\n'), 110);
}

TEST_F(ProcessEngineTest, WhatAWorkerLeftBehindIsRemovedAndWhatOneUsesIsNot) {
  const std::string left = options_.folder + "/penstock-test.dead00";
  fs::create_directories(left + "/0/job");
  open("for job in jobs(): say(result={})");
  EXPECT_FALSE(fs::exists(left));
  auto second = ProcessEngine::open(options_, "test", 1, sink_, [](auto, auto) {});
  ASSERT_TRUE(second);
  EXPECT_EQ(std::distance(fs::directory_iterator(options_.folder), fs::directory_iterator()), 2);
}

}  // namespace
}  // namespace penstock::process
