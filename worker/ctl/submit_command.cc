// submit: a file of requests in, a file of results out.
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "worker/ctl/batch.h"
#include "worker/ctl/command.h"
#include "worker/ctl/edge.h"
#include "worker/ctl/json.h"
#include "worker/ctl/key.h"
#include "worker/ctl/next_step.h"
#include "worker/ctl/submission.h"

namespace penstock::ctl {
namespace {

constexpr size_t kMostAtOnce = 1000;

std::string environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// Empty: none was given.
Result<std::string> key_of(const Arguments& arguments) {
  if (!arguments.has("key-file")) {
    const std::string key = environment("PENSTOCK_KEY", "");
    return key.empty() ? Result<std::string>(key) : read_key(key, std::cin);
  }
  std::ifstream file(arguments.value("key-file"));
  auto key = read_key("-", file);
  return key ? key : Error{arguments.value("key-file") + ": " + key.error().message};
}

// "batch.jsonl" is "batch.results.jsonl".
std::string results_beside(std::string path) {
  constexpr std::string_view kEnding = ".jsonl";
  if (path.ends_with(kEnding)) {
    path.resize(path.size() - kEnding.size());
  }
  return path + ".results" + std::string(kEnding);
}

// A line of its own on the terminal, drawn again and again; nothing elsewhere.
class BarLine {
 public:
  ~BarLine() {
    if (drawn_) {
      std::fputs("\r\x1b[K", stderr);
    }
  }
  void draw(const Progress& progress) {
    if (terminal_) {
      std::fprintf(stderr, "\r%s\x1b[K", progress_bar(progress).c_str());
      std::fflush(stderr);
      drawn_ = true;
    }
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool drawn_ = false;
};

std::string counted(const Progress& progress, const std::string& path) {
  const size_t left = progress.all - progress.done;
  return fmt::format("{} request{}: {} answered, {} failed{}; results in {}", progress.all,
                     progress.all == 1 ? "" : "s", progress.done - progress.failed, progress.failed,
                     left > 0 ? fmt::format(", {} not done", left) : "", path);
}

std::string as_json(const Progress& progress, const std::string& path) {
  return fmt::format(R"({{"object":"batch","total":{},"completed":{},"failed":{},"results":{}}})"
                     "\n",
                     progress.all, progress.done - progress.failed, progress.failed,
                     json_text(path));
}

Outcome submit(const Arguments& arguments, Edge& edge, const Submission::Pace& pace) {
  const std::string& path = arguments.words()[0];
  const std::string output = arguments.value("output", results_beside(path));
  auto batch = BatchFile::open(path);
  if (!batch) {
    return failed(batch.error());
  }
  auto results = ResultsFile::open(output);
  if (!results) {
    return failed(results.error());
  }
  Submission submission(edge, *batch, *results, pace);
  Status run = Ok{};
  {
    BarLine bar;
    run = submission.run([&](const Progress& progress) { bar.draw(progress); });
  }
  const Progress& progress = submission.progress();
  if (!run) {
    return failed({run.error().message + " (" + counted(progress, output) +
                   "); the same command goes on from here"});
  }
  const bool good = progress.failed == 0;
  if (arguments.has("json")) {
    std::fputs(as_json(progress, output).c_str(), stdout);
  }
  return !good                   ? failed({counted(progress, output)})
         : arguments.has("json") ? Outcome{}
                                 : Outcome{Outcome::kFine, counted(progress, output) + "\n"};
}

}  // namespace

Outcome run_submit(const Arguments& arguments) {
  if (arguments.words().size() != 1) {
    return misused("submit takes one file of requests");
  }
  if (!arguments.has("output") && !can_be_read_again(arguments.words()[0])) {
    return misused("what comes by a pipe has no name: say by --output where its results go");
  }
  Submission::Pace pace;
  if (arguments.has("rate")) {
    const auto interval_ns = parse_rate_ns(arguments.value("rate"));
    if (!interval_ns) {
      return misused("--rate is a number of requests and a time, as 1/120s or 10/1m");
    }
    pace.interval_ns = *interval_ns;
  }
  const std::string at_once = arguments.value("concurrency", "4");
  const char* const end = at_once.data() + at_once.size();
  if (std::from_chars(at_once.data(), end, pace.concurrency).ptr != end || pace.concurrency < 1 ||
      pace.concurrency > kMostAtOnce) {
    return misused("--concurrency is a number from 1 to " + std::to_string(kMostAtOnce));
  }
  const auto key = key_of(arguments);
  if (!key) {
    return failed(key.error());
  }
  auto edge = Edge::open(
      {.url = arguments.value("url", environment("PENSTOCK_URL", "http://127.0.0.1:8080")),
       .unix_socket = arguments.value("unix-socket"),
       .key = *key});
  return edge ? submit(arguments, *edge, pace) : misused(edge.error().message);
}

}  // namespace penstock::ctl
