// backup: penstockd copies its state within it, and the copy is taken from there.
#include <unistd.h>

#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"
#include "worker/queue/care/backup.h"

namespace penstock::ctl {
namespace {

constexpr int kEachUs = 50'000;

}  // namespace

Result<std::string> make_copy(Penstockd& penstockd) {
  auto answer = penstockd.ask("POST", "/backup");
  for (;;) {
    if (!answer) {
      return answer.error();
    }
    simdjson::dom::parser parser;
    JsonElement told;
    if (!parse_object(parser, *answer, told)) {
      return Error{"penstockd's answer is no JSON object"};
    }
    const std::string state = cell(told, "state");
    if (state == "made") {
      return cell(told, "folder");
    }
    if (state != "making") {
      return Error{"penstockd could not copy its state: " + cell(told, "error")};
    }
    ::usleep(kEachUs);
    answer = penstockd.ask("GET", "/backup");
  }
}

Outcome run_backup(const Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() != 1 || words[0].empty()) {
    return misused("backup takes the folder that is to hold it");
  }
  std::string to = words[0];
  to.erase(to.find_last_not_of('/') + 1);
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    const auto from = make_copy(penstockd);
    if (!from) {
      return failed(from.error());
    }
    const auto saved = queue::save_backup(*from, to);
    const auto forgotten = penstockd.ask("DELETE", "/backup");
    if (!saved) {
      return failed(saved.error());
    }
    if (!forgotten) {
      return failed(forgotten.error());
    }
    return Outcome{Outcome::kFine, to + ": " + std::to_string(saved->files) + " files, " +
                                       std::to_string(saved->bytes >> 10) +
                                       " KiB; its sums are in SHA256SUMS\n"};
  });
}

}  // namespace penstock::ctl
