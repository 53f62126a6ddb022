#include <algorithm>
#include <array>

#include "shared/base/nearest.h"
#include "worker/ctl/command.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

constexpr Flag kJson{"json", 0, "", "for programs"};
constexpr Flag kUrl{"url", 0, "URL",
                    "the edge's penstock_console location; else $PENSTOCK_CONSOLE, else "
                    "http://127.0.0.1:8080/console"};
constexpr Flag kUnixSocket{"unix-socket", 0, "PATH", "reach the edge through this socket"};

constexpr Flag kSocket{"socket", 's', "SOCKET",
                       "where penstockd listens; else $PENSTOCK_SOCKET, else "
                       "/run/penstock/penstock.sock, else that of `make run` nearby"};
constexpr Flag kConfig{"config", 'c', "FILE", "a penstock.yaml that says where"};
constexpr Flag kWatch{"watch", 'w', "", "again each second, until q or Ctrl-C"};
constexpr Flag kQueue{"queue", 0, "QUEUE", "of this queue only"};
constexpr Flag kLimit{"limit", 0, "N", "so many at most, 1 to 100 (20)"};
constexpr Flag kAfter{"after", 0, "ID", "those older than this one: the next page"};

constexpr std::array kTopFlags = {kSocket, kConfig};
constexpr std::array kJobFlags = {kWatch, kJson, kSocket, kConfig};
constexpr std::array kAskFlags = {kJson, kSocket, kConfig};
constexpr std::array kUpgradeFlags = {Flag{"dry-run", 0, "", "only says what would become of it"},
                                      kJson, kSocket, kConfig};
constexpr std::array kStatusFlags = {Flag{"cluster", 0, "", "of all hosts that share queues"},
                                     kWatch, kJson, kSocket, kConfig};
constexpr std::array kJobsFlags = {
    kWatch,
    kJson,
    kSocket,
    kConfig,
    Flag{"owner", 0, "OWNER", "of this owner: what the edge's penstock_owner came to"},
    Flag{"owner-hash", 0, "HASH", "likewise, as `job ID` shows one"},
    kQueue,
    Flag{"status", 0, "LIST",
         "of scheduled, queued, processing, completed, failed, cancelled, expired, with commas"},
    kLimit,
    kAfter,
};
constexpr std::array kDeadFlags = {
    kJson,  kSocket, kConfig, Flag{"all", 0, "", "requeue or drop every one"},
    kQueue, kLimit,  kAfter,
};
constexpr Flag kStateConfig{"config", 'c', "FILE",
                            "a penstock.yaml that names the state; else the package's"};
constexpr std::array kRestoreFlags = {kStateConfig};
constexpr std::array kExportFlags = {kSocket, kConfig};
constexpr std::array kStateFlags = {kJson, kStateConfig};
constexpr std::array kRepairFlags = {
    kJson, kStateConfig, Flag{"in-place", 0, "", "not in a copy, but in the state itself"}};
constexpr std::array kPurgeFlags = {
    kJson,
    kSocket,
    kConfig,
    Flag{"owner", 0, "OWNER", "every job of this owner: what the edge's penstock_owner came to"},
    Flag{"owner-hash", 0, "HASH", "likewise, as `job ID` shows one"},
};
constexpr std::array kReplayFlags = {
    kJson,
    kSocket,
    kConfig,
    kQueue,
    Flag{"since", 0, "T", "jobs that came then or later: 2h (ago), 2026-11-30T08:00:00Z, seconds"},
    Flag{"until", 0, "T", "and no later than then"},
    Flag{"status", 0, "STATUS", "completed, or failed (completed)"},
    Flag{"model", 0, "NEW", "by this model, instead of their own"},
    Flag{"run", 0, "NAME", "a name: under another one they run once more"},
    Flag{"at-once", 0, "N", "so many in line at once (16)"},
    Flag{"dry-run", 0, "", "only tell which"},
};
constexpr std::array kUsageFlags = {
    kSocket,
    kConfig,
    Flag{"owner", 0, "OWNER", "of this owner: what the edge's penstock_owner came to"},
    Flag{"owner-hash", 0, "HASH", "likewise, as `jobs` or `usage` show one"},
    Flag{"model", 0, "MODEL", "of this model only"},
    Flag{"since", 0, "T", "from then on: 24h (ago), 2026-11-30, 2026-11-30T08:00:00Z, seconds"},
    Flag{"until", 0, "T", "and before then"},
    Flag{"by", 0, "LIST",
         "summed up by hour, day or month, owner, queue, model, with commas; else not at all"},
    Flag{"csv", 0, "", "for spreadsheets"},
    kJson,
    Flag{"cloudevents", 0, "", "a batch of CloudEvents 1.0, of hours that are over"},
};
constexpr std::array kSubmitFlags = {
    kJson,
    Flag{"url", 0, "URL", "the edge; else $PENSTOCK_URL, else http://127.0.0.1:8080"},
    kUnixSocket,
    Flag{"key-file", 0, "FILE", "the caller's key, on its first line; else $PENSTOCK_KEY"},
    Flag{"rate", 0, "N/TIME", "no faster than that, as 1/120s"},
    Flag{"concurrency", 0, "N", "so many at once (4)"},
    Flag{"output", 0, "FILE", "where results go, else FILE.results.jsonl; a pipe (-) needs it"},
};
constexpr std::array kLimitsFlags = {
    kJson,
    kUrl,
    kUnixSocket,
    Flag{"zone", 0, "NAME", "of this zone only"},
    Flag{"all", 0, "", "counters that are at rest, too"},
};
constexpr std::array kKeysFlags = {
    kJson,
    Flag{"file", 'f', "FILE",
         "what penstock_keys names in nginx.conf; else $PENSTOCK_KEYS, else /etc/penstock/keys"},
    Flag{"tier", 0, "PLAN", "whose limits hold for it; - is none"},
    Flag{"owner", 0, "OWNER", "of move: whose it is from now on"},
    Flag{"for", 0, "TIME", "how long it is good from now on, as 90d; 0 is without an end"},
    Flag{"name", 0, "TEXT", "what it is for"},
    Flag{"key-file", 0, "FILE", "of add: a key that you bring, on its first line; - is a pipe"},
    Flag{"all", 0, "", "all keys of the owner"},
};
constexpr std::array kOffendersFlags = {kJson, kUrl, kUnixSocket};

constexpr std::array kCommands = {
    Command{"status", "", "queues, workers and counters of a running penstockd", kStatusFlags,
            run_status},
    Command{"top", "", "the same, live, until q or Ctrl-C", kTopFlags, run_top},
    Command{"jobs", "", "everybody's jobs that were promised, newest first", kJobsFlags, run_jobs},
    Command{"job", "ID", "one job: where it stands, or how it ended", kJobFlags, run_job},
    Command{"cancel", "ID", "cancels a job, wherever it stands", kAskFlags, run_cancel},
    Command{"dead", "[list|show ID|requeue ID|drop ID]",
            "the jobs that failed every attempt; queue them again as if new, or forget them",
            kDeadFlags, run_dead},
    Command{
        "replay", "--queue QUEUE --since T",
        "jobs that are over run again, in the lowest class; goes on where it stopped. The queue "
        "keeps their bodies: keep_bodies",
        kReplayFlags, run_replay},
    Command{"pause", "QUEUE", "a queue takes jobs in, and gives none out, until resume", kAskFlags,
            run_pause},
    Command{"resume", "QUEUE", "a paused queue goes on", kAskFlags, run_resume},
    Command{"drain", "[WORKER]", "a worker, or all, ends when its jobs are done, until scale",
            kAskFlags, run_drain},
    Command{
        "scale", "WORKER N",
        "N processes share the worker's slots and memory; 0 stops it; auto: as configured, or by "
        "its load",
        kAskFlags, run_scale},
    Command{"diff", "[OLD NEW]",
            "what its penstock.yaml changes of what runs, were it reloaded; or one file of another",
            kAskFlags, run_diff},
    Command{"upgrade", "",
            "the program that penstockd was started as, which may be a newer one by now, takes its "
            "place: callers, jobs and workers stay",
            kUpgradeFlags, run_upgrade},
    Command{
        "purge", "ID|--owner OWNER|--owner-hash HASH",
        "a job that is over, or all of an owner's, which are cancelled: nothing of them is kept",
        kPurgeFlags, run_purge},
    Command{"backup", "DIR", "copies the state of a running penstockd, whole, with its sums",
            kAskFlags, run_backup},
    Command{"restore", "DIR [STATE]",
            "makes an empty state of a backup, while penstockd is stopped", kRestoreFlags,
            run_restore},
    Command{"check", "[STATE|BACKUP]",
            "looks at all of a state while penstockd is stopped, or of a backup; 0: in order, 1: "
            "look at it, 2: wrong",
            kStateFlags, run_check},
    Command{"repair", "[STATE]",
            "puts right what can be, in a copy beside it, while penstockd is stopped", kRepairFlags,
            run_repair},
    Command{
        "export", "[STATE|BACKUP]",
        "every job as a line of JSON: of the penstockd that runs, of a state that none uses, or "
        "of a backup",
        kExportFlags, run_export},
    Command{"doctor", "",
            "limits, clock, disk, modes, versions, what was not reloaded; 0: in order, 1: look at "
            "it, 2: wrong",
            kAskFlags, run_doctor},
    Command{"submit", "FILE.jsonl",
            "sends each line, {\"custom_id\",\"method\",\"url\",\"body\"}, and writes its result; "
            "goes on where it stopped, and runs nothing twice",
            kSubmitFlags, run_submit},
    Command{"limits", "KEY [show|reset]",
            "what is counted for a key, or forget it; KEY - is read from the standard input",
            kLimitsFlags, run_limits},
    Command{"keys", "add OWNER|list [OWNER]|move ID|revoke ID",
            "issues keys and takes them back, from the next request on, without a reload",
            kKeysFlags, run_keys},
    Command{"usage", "", "who used what: requests, tokens and GPU time, by the hour", kUsageFlags,
            run_usage},
    Command{"offenders", "", "the keys that were refused most", kOffendersFlags, run_offenders},
};

std::string option_of(const Flag& flag) {
  std::string out = flag.letter != 0 ? std::string{'-', flag.letter, ',', ' '} : std::string();
  out.append("--").append(flag.name);
  if (!flag.value.empty()) {
    out.append(" ").append(flag.value);
  }
  return out;
}

std::string line_of(const Command& command) {
  std::string out(command.name);
  return command.words.empty() ? out : out.append(" ").append(command.words);
}

// "  left      right": the left column as wide as `width`.
std::string row(std::string left, size_t width, std::string_view right) {
  left.resize(std::max(left.size(), width), ' ');
  return "  " + left + "  " + std::string(right) + "\n";
}

}  // namespace

std::span<const Command> commands() { return kCommands; }

const Command* find_command(std::string_view name) {
  const auto found = std::find_if(kCommands.begin(), kCommands.end(),
                                  [&](const Command& each) { return each.name == name; });
  return found == kCommands.end() ? nullptr : &*found;
}

std::string no_command(std::string_view name) {
  std::vector<std::string> names;
  for (const Command& each : kCommands) {
    names.emplace_back(each.name);
  }
  return "there is no command '" + printable(name) + "'; did you mean '" + nearest(name, names) +
         "'? penstockctl help shows them all";
}

std::string usage() {
  std::string out = "usage: penstockctl COMMAND [OPTION...]\n\n";
  for (const Command& command : kCommands) {
    out += row(line_of(command), 40, command.summary);
  }
  return out +
         "\npenstockctl COMMAND --help tells a command's options, penstockctl --version its "
         "version.\n";
}

std::string usage(const Command& command) {
  std::string out = "usage: penstockctl " + line_of(command) + " [OPTION...]\n\n  " +
                    std::string(command.summary) + "\n\n";
  for (const Flag& flag : command.flags) {
    out += row(option_of(flag), 22, flag.help);
  }
  return out;
}

}  // namespace penstock::ctl
