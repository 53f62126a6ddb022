// The commands about jobs: jobs, job, cancel, dead.
#include <ctime>

#include "worker/ctl/job_table.h"
#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"

namespace penstock::ctl {
namespace {

Result<std::string> list_of_jobs(const std::string& json) {
  return jobs_table(json, std::time(nullptr));
}
Result<std::string> list_of_dead(const std::string& json) {
  return dead_table(json, std::time(nullptr));
}

// "job_… is cancelled"
Result<std::string> status_line(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement job;
  if (!parse_object(parser, json, job)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  return cell(job, "id") + " is " + cell(job, "status") + "\n";
}

// Ids go into paths.
bool good_id(const std::string& id) {
  return !id.empty() && id.find_first_of("/?#%") == std::string::npos;
}

// The one id a command takes.
template <typename Use>
Outcome with_id(const Arguments& arguments, size_t at, const char* command, Use&& use) {
  const auto& words = arguments.words();
  if (words.size() != at + 1 || !good_id(words[at])) {
    return misused(std::string(command) + " takes the id of a job, as job_01KB...");
  }
  return use(words[at]);
}

enum class Deed : uint8_t { kRequeue, kDrop };

Result<std::string> do_to_dead(Penstockd& penstockd, Deed deed, const std::string& id) {
  return deed == Deed::kRequeue ? penstockd.ask("POST", "/dead/" + id + "/requeue")
                                : penstockd.ask("DELETE", "/dead/" + id);
}

std::string counted(Deed deed, size_t count) {
  return std::to_string(count) + (count == 1 ? " dead letter " : " dead letters ") +
         (deed == Deed::kRequeue ? "queued again" : "dropped");
}

// Page by page, towards the older ones: what dies again meanwhile is not met twice. One that cannot
// be queued again (its queue is gone) is left, and said.
Outcome do_to_all(const Arguments& arguments, Penstockd& penstockd, Deed deed) {
  simdjson::dom::parser parser;
  std::string after;
  std::string left;
  size_t done = 0;
  for (bool more = true; more;) {
    const auto page = penstockd.ask(
        "GET", "/dead",
        query_of({{"queue", arguments.value("queue")}, {"limit", "100"}, {"after", after}}));
    JsonElement root;
    if (!page || !parse_object(parser, *page, root)) {
      return failed(page ? Error{"penstockd's answer is no JSON object"} : page.error());
    }
    for (const JsonElement job : elements_of(root, "data")) {
      const auto answer = do_to_dead(penstockd, deed, cell(job, "id"));
      if (!answer && penstockd.refused()) {
        left += cell(job, "id") + " is left: " + answer.error().message + "\n";
        continue;
      }
      if (!answer) {
        return failed({cell(job, "id") + ": " + answer.error().message + " (" +
                       counted(deed, done) + " before)"});
      }
      ++done;
    }
    more = truth_of(root, "has_more", false);
    after = cell(root, "last_id");
  }
  if (!left.empty()) {
    return failed({left + counted(deed, done)});
  }
  return arguments.has("json")
             ? as_received("{\"object\":\"dead_letters\",\"count\":" + std::to_string(done) + "}")
             : Outcome{Outcome::kFine, counted(deed, done) + "\n"};
}

Outcome do_to_one(const Arguments& arguments, Deed deed, const std::string& id) {
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    auto answer = do_to_dead(penstockd, deed, id);
    return !answer ? failed(answer.error())
                   : tell(arguments, *std::move(answer), [&](const std::string&) {
                       return Result<std::string>(
                           id + (deed == Deed::kRequeue ? " is queued again\n" : " is dropped\n"));
                     });
  });
}

}  // namespace

Outcome run_jobs(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("jobs takes no '" + arguments.words()[0] + "'; `job ID` shows one");
  }
  return ask_and_tell(arguments, "GET", "/jobs",
                      query_of({{"owner", arguments.value("owner")},
                                {"owner_hash", arguments.value("owner-hash")},
                                {"queue", arguments.value("queue")},
                                {"status", arguments.value("status")},
                                {"limit", arguments.value("limit")},
                                {"after", arguments.value("after")}}),
                      list_of_jobs);
}

Outcome run_job(const Arguments& arguments) {
  return with_id(arguments, 0, "job", [&](const std::string& id) {
    return ask_and_tell(arguments, "GET", "/jobs/" + id, "", job_lines);
  });
}

Outcome run_cancel(const Arguments& arguments) {
  return with_id(arguments, 0, "cancel", [&](const std::string& id) {
    return ask_and_tell(arguments, "DELETE", "/jobs/" + id, "", status_line);
  });
}

Outcome run_dead(const Arguments& arguments) {
  const auto& words = arguments.words();
  const std::string action = words.empty() ? "list" : words[0];
  const bool all = arguments.has("all");
  if (action == "list" && words.size() <= 1 && !all) {
    return ask_and_tell(arguments, "GET", "/dead",
                        query_of({{"queue", arguments.value("queue")},
                                  {"limit", arguments.value("limit")},
                                  {"after", arguments.value("after")}}),
                        list_of_dead);
  }
  if (action == "show" && !all) {
    return with_id(arguments, 1, "dead show", [&](const std::string& id) {
      return ask_and_tell(arguments, "GET", "/dead/" + id, "", job_lines);
    });
  }
  if (action != "requeue" && action != "drop") {
    return misused("dead takes list, show ID, requeue ID or drop ID; --all is for the last two");
  }
  const Deed deed = action == "requeue" ? Deed::kRequeue : Deed::kDrop;
  if (all && words.size() == 1) {
    return with_penstockd(
        arguments, [&](Penstockd& penstockd) { return do_to_all(arguments, penstockd, deed); });
  }
  if (all || words.size() != 2 || !good_id(words[1])) {
    return misused("dead " + action + " takes the id of a dead letter, or --all");
  }
  return do_to_one(arguments, deed, words[1]);
}

}  // namespace penstock::ctl
