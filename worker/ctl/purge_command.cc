// purge: all jobs of one owner, and nothing of them is kept.
#include <unistd.h>

#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"

namespace penstock::ctl {
namespace {

constexpr int kEachUs = 50'000;
constexpr int kMostRounds = 1200;  // a minute, for what runs to end

struct Purged {
  size_t jobs = 0;
  size_t alive = 0;  // and cancelled, and not over yet
};

// One page after the other: what is over goes, what is not is cancelled.
Result<Purged> purge_all(Penstockd& penstockd, const Arguments& arguments) {
  Purged purged;
  std::string after;
  for (;;) {
    const auto page = penstockd.ask("GET", "/jobs",
                                    query_of({{"owner", arguments.value("owner")},
                                              {"owner_hash", arguments.value("owner-hash")},
                                              {"limit", "100"},
                                              {"after", after}}));
    if (!page) {
      return page.error();
    }
    simdjson::dom::parser parser;
    JsonElement told;
    if (!parse_object(parser, *page, told)) {
      return Error{"penstockd's answer is no JSON object"};
    }
    std::string last;
    for (const JsonElement job : elements_of(told, "data")) {
      last = cell(job, "id");
      const std::string status = cell(job, "status");
      const bool alive = status == "scheduled" || status == "queued" || status == "processing";
      const auto done = penstockd.ask("DELETE", "/jobs/" + last, alive ? "" : "purge");
      if (!done && !penstockd.refused()) {
        return done.error();
      }
      (alive || !done ? purged.alive : purged.jobs) += 1;
    }
    if (last.empty() || !truth_of(told, "has_more", false)) {
      return purged;
    }
    after = last;
  }
}

}  // namespace

Outcome run_purge(const Arguments& arguments) {
  const auto& words = arguments.words();
  const bool by_owner = arguments.has("owner") || arguments.has("owner-hash");
  if (words.size() + (by_owner ? 1 : 0) != 1) {
    return misused("purge takes the id of a job that is over, or --owner, or --owner-hash");
  }
  if (!by_owner) {
    return ask_and_tell(arguments, "DELETE", "/jobs/" + words[0], "purge", [&](const std::string&) {
      return Result<std::string>(words[0] + " is purged\n");
    });
  }
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    size_t jobs = 0;
    for (int round = 0; round < kMostRounds; ++round) {
      const auto purged = purge_all(penstockd, arguments);
      if (!purged) {
        return failed(purged.error());
      }
      jobs += purged->jobs;
      if (purged->alive == 0) {
        return tell(
            arguments, "{\"purged\":" + std::to_string(jobs) + "}", [&](const std::string&) {
              return Result<std::string>(std::to_string(jobs) +
                                         (jobs == 1 ? " job is purged\n" : " jobs are purged\n"));
            });
      }
      ::usleep(kEachUs);
    }
    return failed(
        Error{std::to_string(jobs) +
              " jobs are purged; others are cancelled and not over yet: purge once more"});
  });
}

}  // namespace penstock::ctl
