// The commands that tell penstockd to do something: pause, resume, drain, scale.

#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"

namespace penstock::ctl {
namespace {

bool good_name(const std::string& name) {
  return !name.empty() && name.find_first_of("/?#%") == std::string::npos;
}

Outcome pause_or_resume(const Arguments& arguments, const std::string& what,
                        const std::string& result) {
  const auto& words = arguments.words();
  if (words.size() != 1 || !good_name(words[0])) {
    return misused(what + " takes the name of a queue; `status` shows them");
  }
  return ask_and_tell(arguments, "POST", "/queues/" + words[0] + "/" + what, "",
                      [&](const std::string&) {
                        return Result<std::string>("queue " + words[0] + " " + result + "\n");
                      });
}

}  // namespace

Outcome run_pause(const Arguments& arguments) {
  return pause_or_resume(arguments, "pause", "is paused: it takes jobs in, and gives none out");
}

Outcome run_resume(const Arguments& arguments) {
  return pause_or_resume(arguments, "resume", "goes on");
}

Outcome run_drain(const Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() > 1 || (words.size() == 1 && !good_name(words[0]))) {
    return misused("drain takes the name of a worker, or nothing for all of them");
  }
  const std::string path = words.empty() ? "/workers/drain" : "/workers/" + words[0] + "/drain";
  const std::string who =
      words.empty()
          ? "all workers end when their jobs are done; `scale WORKER 1`"
          : "worker " + words[0] + " ends when its jobs are done; `scale " + words[0] + " 1`";
  return ask_and_tell(arguments, "POST", path, "", [&](const std::string&) {
    return Result<std::string>(who + " brings one back\n");
  });
}

Outcome run_scale(const Arguments& arguments) {
  const auto& words = arguments.words();
  const auto is_number = [](const std::string& word) {
    return !word.empty() && word.find_first_not_of("0123456789") == word.npos;
  };
  if (words.size() != 2 || !good_name(words[0]) || !(is_number(words[1]) || words[1] == "auto")) {
    return misused("scale takes the name of a worker and a number of processes, or auto");
  }
  return ask_and_tell(arguments, "POST", "/workers/" + words[0] + "/scale", "n=" + words[1],
                      [&](const std::string& json) -> Result<std::string> {
                        simdjson::dom::parser parser;
                        JsonElement worker;
                        if (!parse_object(parser, json, worker)) {
                          return Error{"penstockd's answer is no JSON object"};
                        }
                        const std::string n = cell(worker, "processes");
                        return "worker " + words[0] + ": " + n +
                               (n == "1" ? " process" : " processes") + ", " +
                               cell(worker, "slots") + " slots in all\n";
                      });
}

}  // namespace penstock::ctl
