// The command replay: jobs of a queue that are over run again, as new ones in the lowest class.
//
// penstockd makes one new job of each for a model and a run, whoever asks how often, unless that
// failed (operator_api_replay.cc): so a replay that was interrupted is given once more, and goes
// on.
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <ctime>
#include <deque>
#include <thread>

#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"
#include "worker/ctl/table.h"
#include "worker/ctl/time_of.h"

namespace penstock::ctl {
namespace {

constexpr uint32_t kAtOnce = 16;
constexpr uint32_t kMostAtOnce = 1000;
constexpr auto kPause = std::chrono::milliseconds(200);

struct Wanted {
  std::string queue, status, model, run;
  int64_t since_s = 0;
  int64_t until_s = 0;
};

Error no_json() { return {"penstockd's answer is no JSON object"}; }

// An Error, as of an order to a queue (pause), where there is none of that name.
Status look_for_queue(Penstockd& penstockd, const std::string& name) {
  const auto status = penstockd.status();
  simdjson::dom::parser parser;
  JsonElement root;
  if (!status || !parse_object(parser, *status, root)) {
    return status ? no_json() : status.error();
  }
  std::string names;
  for (const JsonElement queue : elements_of(root, "queues")) {
    const std::string each = cell(queue, "name");
    if (each == name) {
      return Ok{};
    }
    names += (names.empty() ? "" : ", ") + each;
  }
  return Error{fmt::format("There is no queue '{}'. Queues: {}.", printable(name), names)};
}

// The ids of those jobs, the earliest first, without replays: those are of jobs that are there.
Result<std::vector<std::string>> find(Penstockd& penstockd, const Wanted& wanted) {
  simdjson::dom::parser parser;
  std::deque<std::string> ids;
  std::string after;
  for (bool more = true; more;) {
    const auto page = penstockd.ask("GET", "/jobs",
                                    query_of({{"queue", wanted.queue},
                                              {"status", wanted.status},
                                              {"limit", "100"},
                                              {"after", after}}));
    JsonElement root;
    if (!page || !parse_object(parser, *page, root)) {
      return page ? no_json() : page.error();
    }
    more = truth_of(root, "has_more", false);
    for (const JsonElement job : elements_of(root, "data")) {
      const auto came_s = static_cast<int64_t>(number_of(job, "created_at"));
      if (came_s >= wanted.since_s && came_s <= wanted.until_s && !truth_of(job, "replay", false)) {
        ids.push_front(cell(job, "id"));
      }
      more = more && came_s >= wanted.since_s;  // the rest is older
    }
    after = cell(root, "last_id");
  }
  return std::vector<std::string>(ids.begin(), ids.end());
}

class Replay {
 public:
  Replay(Penstockd& penstockd, const Wanted& wanted, size_t at_once)
      : penstockd_(penstockd), wanted_(wanted), at_once_(at_once) {}

  Status run(const std::vector<std::string>& ids) {
    for (const std::string& id : ids) {
      if (Status room = wait_until(at_once_ - 1); !room) {
        return room;
      }
      if (Status begun = begin(id); !begun) {
        return begun;
      }
    }
    return wait_until(0);
  }
  std::string text() const {
    return fmt::format("{} run again: {} completed, {} did not{}{}\n", begun_ + there_, completed_,
                       failed_, there_ == 0 ? "" : fmt::format("; {} were there already", there_),
                       left_ == 0 ? "" : fmt::format("; {} are left: {}", left_, why_));
  }
  std::string json() const {
    return fmt::format(
        R"({{"object":"replay","begun":{},"there":{},"completed":{},"failed":{},"left":{}}})",
        begun_, there_, completed_, failed_, left_);
  }

 private:
  Status begin(const std::string& id) {
    for (;;) {
      const auto answer =
          penstockd_.ask("POST", "/jobs/" + id + "/replay",
                         query_of({{"model", wanted_.model}, {"run", wanted_.run}}));
      JsonElement job;
      if (answer) {
        if (!parse_object(parser_, *answer, job)) {
          return no_json();
        }
        ++(truth_of(job, "duplicate", false) ? there_ : begun_);
        under_way_.push_back(cell(job, "id"));
        return Ok{};
      }
      if (!penstockd_.refused()) {
        return answer.error();
      }
      if (answer.error().message.find("Try again") == std::string::npos) {
        ++left_;
        why_ = answer.error().message;
        return Ok{};
      }
      std::this_thread::sleep_for(kPause);  // there is no room now
    }
  }

  // Until so many of those that were begun are left.
  Status wait_until(size_t most) {
    while (under_way_.size() > most) {
      const size_t before = under_way_.size();
      for (size_t i = 0; i < before; ++i) {
        const std::string id = under_way_.front();
        under_way_.pop_front();
        const auto answer = penstockd_.ask("GET", "/jobs/" + id);
        JsonElement job;
        if (!answer && !penstockd_.refused()) {
          return answer.error();
        }
        if (answer && !parse_object(parser_, *answer, job)) {
          return no_json();
        }
        const std::string status = answer ? cell(job, "status") : "gone";
        if (status == "completed") {
          ++completed_;
        } else if (status == "scheduled" || status == "queued" || status == "processing") {
          under_way_.push_back(id);
        } else {
          ++failed_;
        }
      }
      if (under_way_.size() == before) {
        std::this_thread::sleep_for(kPause);
      }
    }
    return Ok{};
  }

  Penstockd& penstockd_;
  const Wanted& wanted_;
  const size_t at_once_;
  simdjson::dom::parser parser_;
  std::deque<std::string> under_way_;
  size_t begun_ = 0, there_ = 0, completed_ = 0, failed_ = 0, left_ = 0;
  std::string why_;
};

}  // namespace

Outcome run_replay(const Arguments& arguments) {
  const int64_t now_s = std::time(nullptr);
  const auto since_s = time_of(arguments.value("since"), now_s);
  const auto until_s = time_of(arguments.value("until", std::to_string(now_s)), now_s);
  const std::string status = arguments.value("status", "completed");
  const std::string many = arguments.value("at-once", std::to_string(kAtOnce));
  uint32_t at_once = 0;
  const auto [end, error] = std::from_chars(many.data(), many.data() + many.size(), at_once);
  if (!arguments.words().empty() || !arguments.has("queue")) {
    return misused("replay takes --queue Q --since T");
  }
  if (!since_s || !until_s) {
    return misused("--since and --until are times: 2h (ago), 2026-11-30T08:00:00Z, or seconds");
  }
  if (status != "completed" && status != "failed") {
    return misused("--status is completed or failed");
  }
  if (error != std::errc() || end != many.data() + many.size() || at_once == 0 ||
      at_once > kMostAtOnce) {
    return misused(fmt::format("--at-once is a number from 1 to {}", kMostAtOnce));
  }
  const Wanted wanted{arguments.value("queue"), status,   arguments.value("model"),
                      arguments.value("run"),   *since_s, *until_s};
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    if (const Status there = look_for_queue(penstockd, wanted.queue); !there) {
      return failed(there.error());
    }
    const auto ids = find(penstockd, wanted);
    if (!ids) {
      return failed(ids.error());
    }
    if (arguments.has("dry-run")) {
      std::string text;
      for (const std::string& id : *ids) {
        text += id + "\n";
      }
      return Outcome{Outcome::kFine, text + fmt::format("{} would run again\n", ids->size())};
    }
    Replay replay(penstockd, wanted, at_once);
    if (Status done = replay.run(*ids); !done) {
      return failed({done.error().message + "\n" + replay.text() +
                     "Give the same command once more: it goes on."});
    }
    return arguments.has("json") ? as_received(replay.json())
                                 : Outcome{Outcome::kFine, replay.text()};
  });
}

}  // namespace penstock::ctl
