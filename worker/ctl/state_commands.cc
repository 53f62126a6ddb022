// The commands about a state that no penstockd uses: restore, check, repair; and export, which goes
// by a copy where one does.
#include <cstdio>
#include <ctime>

#include "worker/ctl/findings.h"
#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"
#include "worker/queue/care/backup.h"
#include "worker/queue/care/state_check.h"
#include "worker/queue/config/load_config.h"

namespace penstock::ctl {
namespace {

// The folder that was named, else that of -c's or the package's penstock.yaml.
Result<std::string> state_of(const Arguments& arguments, size_t word) {
  if (arguments.words().size() > word) {
    return arguments.words()[word];
  }
  const auto config = queue::load_config(arguments.value("config", "/etc/penstock/penstock.yaml"),
                                         queue::NamedFiles::kNamed);
  if (!config) {
    return Error{config.error().message +
                 "\nname the folder of the state, or its penstock.yaml (-c)"};
  }
  return config->state.empty() ? Result<std::string>(Error{"there is no `state` in that file"})
                               : config->state;
}

std::string stamp() {
  char text[32];
  const time_t now = ::time(nullptr);
  tm utc;
  ::gmtime_r(&now, &utc);
  std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &utc);
  return text;
}

Status export_from(const std::string& folder) {
  return queue::export_state(folder, [](std::string_view line) {
    return std::fwrite(line.data(), 1, line.size(), stdout) == line.size();
  });
}

}  // namespace

Outcome run_check(const Arguments& arguments) {
  if (arguments.words().size() > 1) {
    return misused("check takes one folder");
  }
  const auto folder = state_of(arguments, 0);
  const auto findings = folder ? queue::check_state(*folder) : folder.error();
  return findings ? tell_findings(arguments, *findings) : failed(findings.error());
}

Outcome run_repair(const Arguments& arguments) {
  if (arguments.words().size() > 1) {
    return misused("repair takes one folder");
  }
  const auto folder = state_of(arguments, 0);
  if (!folder) {
    return failed(folder.error());
  }
  std::string where = *folder;
  if (!arguments.has("in-place")) {
    where += ".repaired-" + stamp();
    if (Status copied = queue::copy_state(*folder, where); !copied) {
      return failed(copied.error());
    }
  }
  auto findings = queue::repair_state(where);
  if (!findings) {
    return failed(findings.error());
  }
  findings->push_back(
      {queue::Finding::Level::kOk, "where",
       where + (where == *folder ? " itself" : ", a copy; the state is as it was"),
       where == *folder ? "" : "look at it (check), then put it in the state's place"});
  return tell_findings(arguments, *findings);
}

Outcome run_restore(const Arguments& arguments) {
  if (arguments.words().empty() || arguments.words().size() > 2) {
    return misused("restore takes a backup, and the folder of the state");
  }
  const auto folder = state_of(arguments, 1);
  if (!folder) {
    return failed(folder.error());
  }
  const auto saved = queue::restore_backup(arguments.words()[0], *folder);
  return saved ? Outcome{Outcome::kFine, *folder + " is as in " + arguments.words()[0] + ": " +
                                             std::to_string(saved->files) + " files, all checked\n"}
               : failed(saved.error());
}

Outcome run_export(const Arguments& arguments) {
  if (arguments.words().size() > 1) {
    return misused("export takes one folder");
  }
  const auto socket = arguments.words().empty() ? socket_of(arguments) : Error{""};
  auto penstockd = socket ? Penstockd::connect(*socket) : Result<Penstockd>(socket.error());
  if (!penstockd && arguments.has("socket")) {
    return failed(penstockd.error());
  }
  const auto folder = penstockd ? make_copy(*penstockd) : state_of(arguments, 0);
  if (!folder) {
    return failed(folder.error());
  }
  const Status done = export_from(*folder);
  const auto forgotten = penstockd ? penstockd->ask("DELETE", "/backup") : std::string();
  if (!done && done.error().kind == ErrorKind::kBusy) {
    return failed(Error{done.error().message + "; or name no folder: it is asked for a copy"});
  }
  return done && forgotten ? Outcome{} : failed(done ? forgotten.error() : done.error());
}

}  // namespace penstock::ctl
