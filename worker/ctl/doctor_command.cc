// doctor: whether all around penstockd is as it should be.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>

#include "shared/base/clock.h"
#include "worker/ctl/findings.h"
#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"
#include "worker/ctl/versions.h"
#include "worker/queue/care/needs.h"
#include "worker/queue/config/load_config.h"

namespace penstock::ctl {
namespace {

using queue::Finding;
using Level = Finding::Level;
using Findings = std::vector<Finding>;

void note(Findings& findings, Level level, std::string about, std::string text,
          std::string advice = {}) {
  findings.push_back({level, std::move(about), std::move(text), std::move(advice)});
}

// https://man7.org/linux/man-pages/man2/adjtimex.2.html
void look_at_clock(Findings& findings) {
  timex clock{};
  const int state = ::adjtimex(&clock);
  const bool steady = state != TIME_ERROR && (clock.status & STA_UNSYNC) == 0;
  steady ? note(findings, Level::kOk, "clock", "is synchronised")
         : note(findings, Level::kWarn, "clock",
                "is not synchronised: deadlines, quotas and what hosts tell each other go by it",
                "run an NTP client (systemd-timesyncd, chrony)");
}

// How long a flush of a block takes there, in the middle.
void look_at_flushes(const std::string& state, Findings& findings) {
  constexpr int kTimes = 15;
  constexpr int64_t kSlowNs = 20 * kNsPerMs;
  std::string path = state + "/.doctor.XXXXXX";
  const Fd file(::mkostemp(path.data(), O_CLOEXEC));
  if (!file.valid() && errno == ENOENT) {
    return note(findings, Level::kWarn, "flushes",
                state + " is not there, so they were not measured",
                "penstockd makes it when it starts");
  }
  if (!file.valid()) {
    return note(findings, Level::kWarn, "flushes",
                state + " may not be written to, so they were not measured",
                "call this as penstockd's user or root");
  }
  ::unlink(path.c_str());
  std::vector<int64_t> took;
  const std::string block(4096, 'x');
  for (int i = 0; i < kTimes; ++i) {
    const int64_t begun_ns = monotonic_ns();
    if (::pwrite(file.get(), block.data(), block.size(), 0) < 0 || ::fdatasync(file.get()) != 0) {
      return note(findings, Level::kBad, "flushes", state + ": " + std::strerror(errno),
                  "look at the disk");
    }
    took.push_back(monotonic_ns() - begun_ns);
  }
  std::sort(took.begin(), took.end());
  const double middle = static_cast<double>(took[kTimes / 2]) / kNsPerMs;
  const std::string text = fmt::format("{:.2f} ms each, {:.2f} ms at worst, in {}", middle,
                                       static_cast<double>(took.back()) / kNsPerMs, state);
  took[kTimes / 2] <= kSlowNs ? note(findings, Level::kOk, "flushes", text)
                              : note(findings, Level::kWarn, "flushes", text,
                                     "each promise waits that long: a faster disk");
}

// What the running process may open, of /proc.
void look_at_limits(const std::string& pid, const queue::Config* config, Findings& findings) {
  std::ifstream limits("/proc/" + pid + "/limits");
  constexpr std::string_view kOpenFiles = "Max open files";
  for (std::string line; std::getline(limits, line);) {
    if (!line.starts_with(kOpenFiles) || config == nullptr) {
      continue;
    }
    const uint64_t has = std::strtoull(line.c_str() + kOpenFiles.size(), nullptr, 10);
    const uint64_t wants = config->limits.max_connections + 512U;
    has >= wants ? note(findings, Level::kOk, "nofile", std::to_string(has) + " files may be open")
                 : note(findings, Level::kWarn, "nofile",
                        fmt::format("{} files may be open, and {} connections want {}", has,
                                    config->limits.max_connections, wants),
                        fmt::format("LimitNOFILE={} in its unit, and a restart", wants));
  }
}

void look_at_workers(JsonElement status, Findings& findings) {
  size_t ready = 0;
  const auto workers = elements_of(status, "workers");
  for (const JsonElement worker : workers) {
    const std::string about = "worker " + cell(worker, "name");
    const std::string state = cell(worker, "state");
    const std::string error = cell(worker, "last_error");
    if (state == "ready" && cell(worker, "open_slots") == "0") {
      note(findings, Level::kWarn, about,
           "is ready, and none of its slots is open: " + cell(worker, "why_closed"),
           "see to what is behind it");
    } else if (state == "ready") {
      ++ready;
    } else if (state != "stopped") {
      note(findings, Level::kWarn, about, "is " + state + (error == "-" ? "" : ": " + error),
           "penstockctl status shows it; its own lines are in penstockd's log");
    }
  }
  bool serves = workers.empty();  // other hosts do
  for (const JsonElement queue : elements_of(status, "queues")) {
    const std::string state = cell(queue, "state");
    const bool served = state == "open" || state == "full";
    serves = serves && served;
    if (!served && state != "draining") {
      note(findings, Level::kBad, "queue " + cell(queue, "name"),
           state + ": who would wait there is refused", "penstockctl status");
    }
  }
  if (ready == 0 && !serves) {
    note(findings, Level::kBad, "workers", "none is ready: nothing is served",
         "penstockctl status");
  } else {
    note(findings, Level::kOk, "workers",
         std::to_string(ready) + " of " + std::to_string(workers.size()) + " are ready");
  }
}

void look_at_status(const std::string& json, const queue::Config* config, Findings& findings) {
  simdjson::dom::parser parser;
  JsonElement status;
  if (!parse_object(parser, json, status)) {
    return note(findings, Level::kBad, "penstockd", "its status is no JSON object");
  }
  const std::string runs = cell(status, "version");
  note(findings, Level::kOk, "penstockd",
       "is " + cell(status, "status") + ", version " + runs + ", process " + cell(status, "pid"));
  look_at_versions(status, findings);
  look_at_limits(cell(status, "pid"), config, findings);
  look_at_workers(status, findings);
  if (const auto state = object_of(status, "state")) {
    if (const std::string error = cell(*state, "error"); error != "-") {
      note(findings, Level::kBad, "state", error, "docs/STATE.md");
    }
    const double used = number_of(*state, "bytes") / std::max(1.0, number_of(*state, "max_bytes"));
    if (used > 0.8) {
      note(findings, Level::kWarn, "state",
           fmt::format("{:.0f} % of limits.max_state are taken", used * 100),
           "raise it, or keep results for a shorter time (keep_results)");
    }
  }
}

// What runs beside its file; and where that is.
std::string look_at_changes(const std::string& json, Findings& findings) {
  simdjson::dom::parser parser;
  JsonElement told;
  if (!parse_object(parser, json, told)) {
    return "";
  }
  const std::string file = cell(told, "file");
  const size_t changes = elements_of(told, "changes").size();
  if (const std::string error = cell(told, "error"); error != "-") {
    note(findings, Level::kBad, "reload", "would be refused: " + error, "mend the file");
  } else if (changes > 0) {
    note(findings, Level::kWarn, "reload",
         fmt::format("{} keys of {} are not in force", changes, file),
         "penstockctl diff shows them; HUP brings them into force");
  } else {
    note(findings, Level::kOk, "reload", file + " is what runs");
  }
  return file;
}

std::string programs() {
  std::error_code none;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", none).parent_path();
  const auto system = here.parent_path() / "sbin";
  return (std::filesystem::exists(here / "penstock-worker", none) ? here : system).string() + "/";
}

}  // namespace

Outcome run_doctor(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("doctor takes no '" + arguments.words()[0] + "'");
  }
  Findings findings;
  const auto socket = socket_of(arguments);
  auto penstockd = socket ? Penstockd::connect(*socket) : Result<Penstockd>(socket.error());
  const auto status = penstockd ? penstockd->status() : penstockd.error();
  std::string file = arguments.value("config", "/etc/penstock/penstock.yaml");
  if (const auto changes = status ? penstockd->ask("GET", "/changes") : status; changes) {
    if (const std::string of_it = look_at_changes(*changes, findings); !of_it.empty()) {
      file = of_it;
    }
  }
  const auto config = queue::load_config(file, queue::NamedFiles::kNamed);
  status ? look_at_status(*status, config ? &*config : nullptr, findings)
         : note(findings, Level::kBad, "penstockd", status.error().message,
                "systemctl status penstockd; its log says why");
  look_at_clock(findings);
  if (!config) {
    note(findings, Level::kBad, "configuration", config.error().message, "penstockd -t -c " + file);
  } else {
    const Findings needs = look_at_needs(*config, programs());
    findings.insert(findings.end(), needs.begin(), needs.end());
    look_at_stores(config->redis, findings);
    if (!config->state.empty()) {
      look_at_flushes(config->state, findings);
    }
  }
  std::stable_sort(findings.begin(), findings.end(),
                   [](const Finding& a, const Finding& b) { return a.level > b.level; });
  return tell_findings(arguments, findings);
}

}  // namespace penstock::ctl
