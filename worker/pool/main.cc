// penstock-worker: one process for one device and one model (pool.h); or the one that looks at all
// devices (worker/nvml/watch.h).
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>

#include "shared/base/call_failed.h"
#include "shared/base/log.h"
#include "shared/base/unix_socket.h"
#include "shared/base/version.h"
#include "worker/engines/registry.h"
#include "worker/nvml/watch.h"
#include "worker/pool/confine.h"
#include "worker/pool/options.h"
#include "worker/pool/pool.h"
#include "worker/pool/pulse.h"

namespace penstock {
namespace {

constexpr int kUsageError = 2;

// Another library than the driver's, for tests.
constexpr const char* kNvmlVariable = "PENSTOCK_NVML";
constexpr const char* kNvml = "libnvidia-ml.so.1";

// TERM is read from the returned descriptor; blocked before the engine starts threads, so that none
// of them takes it. INT is penstockd's to decide about: a terminal's Ctrl-C reaches the whole
// group.
Fd take_signals() {
  ::signal(SIGPIPE, SIG_IGN);  // who reads the log may be gone
  ::signal(SIGINT, SIG_IGN);
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &term, nullptr);
  return Fd(::signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK));
}

Result<Fd> take_socket(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
    return Error{"--fd " + std::to_string(fd) +
                 " is not a stream socket; penstockd starts workers with one end of a socket pair"};
  }
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return Fd(fd);
}

// A socket for penstockd's own, to be connected later: what would be in the way is told now.
Result<Fd> socket_for(const std::string& path) {
  if (!unix_address(path)) {
    return Error{"--connect " + path + " is too long for a socket's path"};
  }
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid() || ::access(path.c_str(), W_OK) != 0) {
    return call_failed(path, "connect");
  }
  return socket;
}

Status connect_to(int socket, const std::string& path) {
  const auto address = unix_address(path);
  return ::connect(socket, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0
             ? Status(Ok{})
             : call_failed(path, "connect");
}

// A sleeper comes awake some 30 us late, and a timer is another 50 us late: time in which a slot
// would stand empty. What is to come sooner than this is waited for awake.
constexpr int64_t kAwakeNs = 120'000;

struct Woken {
  bool by_term = false;
  Pool::Ready ready;
};

// Waits for the turn's wake time, the socket, the engine, what was read beside it, or TERM.
// `in_time`: whether the last wait was for the time; then what ended has taken some, and is worth
// staying awake for. What runs elsewhere ends when it does, and has the core to itself.
Woken wait(const Pool::Next& next, int socket, int signals, int engine, int admitted,
           bool& in_time) {
  pollfd fds[] = {{socket, static_cast<short>(next.wants_write ? POLLIN | POLLOUT : POLLIN), 0},
                  {signals, POLLIN, 0},
                  {next.hears_engine ? engine : -1, POLLIN, 0},
                  {admitted, POLLIN, 0}};
  const int64_t begun_ns = monotonic_ns();
  const int64_t awake_until_ns = next.took && in_time ? begun_ns + kAwakeNs : begun_ns;
  for (int64_t now_ns = begun_ns;; now_ns = monotonic_ns()) {
    const int64_t asleep_ns =
        now_ns < awake_until_ns
            ? 0
            : std::clamp<int64_t>(next.wake_ns - kAwakeNs - now_ns, 0, kNsPerSec);
    const timespec timeout{asleep_ns / kNsPerSec, asleep_ns % kNsPerSec};
    const int ready = ::ppoll(fds, std::size(fds), &timeout, nullptr);
    const bool due = monotonic_ns() >= next.wake_ns;
    in_time = due && engine < 0;
    if (ready != 0 || due || asleep_ns == kNsPerSec) {
      break;
    }
    if (asleep_ns == 0) {
      ::sched_yield();
    }
  }
  signalfd_siginfo info;
  return {.by_term = (fds[1].revents & POLLIN) != 0 && ::read(signals, &info, sizeof info) > 0,
          .ready = {.socket = fds[0].revents != 0, .engine = (fds[2].revents & POLLIN) != 0}};
}

// Tells both the operator and penstockd why this worker ends.
int give_up(Link& link, const std::string& why, bool device_fault = false) {
  write_log(LogLevel::kError, why);
  wire::append(link.out(), 0, wire::Goodbye{why, device_fault ? 1U : 0U});
  link.flush();
  return 1;
}
int give_up(Link& link, const DeviceLost& fault) {
  return give_up(link, std::string("the device failed: ") + fault.what(), true);
}

int run(const WorkerOptions& options, int signals, Link& link, FrameSink& sink,
        std::unique_ptr<Engine> engine) {
  Pool pool({.name = options.name,
             .model = options.model_name,
             .slots = options.slots,
             .memory_bytes = options.memory_bytes,
             .claims_memory = options.claims_memory},
            link, sink, std::move(engine));
  Pulse pulse(link);
  Woken woken;
  for (bool in_time = false;;) {
    Pool::Next next;
    const int64_t now_ns = monotonic_ns();
    pulse.begin(now_ns, pool.heartbeat());
    try {
      next = pool.turn(now_ns, woken.ready);
    } catch (const DeviceLost& fault) {
      // Nothing is freed on a device that may never answer again.
      std::_Exit(give_up(link, fault));
    }
    pulse.end();
    if (!next.message.empty()) {
      write_log(next.exit_status == 1 ? LogLevel::kError : LogLevel::kInfo, next.message);
    }
    tell_lost_lines(now_ns);
    if (next.over) {
      return next.exit_status;
    }
    woken = wait(next, link.fd(), signals, pool.engine().wake_fd(), pool.admitted_fd(), in_time);
    if (woken.by_term) {
      pool.drain();
    }
  }
}

int serve(const WorkerOptions& options) {
  const bool connects = !options.connect.empty() && !options.watch_devices;
  auto socket = connects ? socket_for(options.connect) : take_socket(options.fd);
  if (!socket) {
    std::fprintf(stderr, "penstock-worker: %s\n", socket.error().message.c_str());
    return kUsageError;
  }
  if (options.watch_devices) {
    const char* const other = std::getenv(kNvmlVariable);
    return nvml::watch_devices(std::move(*socket), other != nullptr ? other : kNvml);
  }
  const Fd signals = take_signals();
  wire::Limits limits;
  limits.submit_bytes =
      static_cast<uint32_t>(options.max_body_bytes + (64U << 10)) + wire::kSubmitSlackBytes;
  Link link(std::move(*socket), limits);
  FrameSink sink(link.out());
  try {
    if (const Status works = check_device(options); !works) {
      return give_up(link, works.error().message, true);
    }
    auto engine = open_engine(options, sink);
    if (!engine) {
      return give_up(link, engine.error().message);
    }
    // Now that it can say HELLO at once: penstockd waits `hello_timeout` for that, and a model may
    // take minutes.
    if (connects) {
      if (const Status connected = connect_to(link.fd(), options.connect); !connected) {
        return give_up(link, connected.error().message);
      }
    }
    return run(options, signals.get(), link, sink, std::move(*engine));
  } catch (const DeviceLost& fault) {  // before there was a job
    return give_up(link, fault);
  } catch (const std::exception& fault) {
    return give_up(link, std::string("the engine broke: ") + fault.what());
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  if (penstock::say_version("penstock-worker", argc, argv)) {
    return 0;
  }
  const auto options = penstock::parse_command_line(argc, argv);
  if (!options) {
    std::fprintf(stderr, "penstock-worker: %s\n%s", options.error().message.c_str(),
                 penstock::kUsage);
    return penstock::kUsageError;
  }
  if (options->help) {
    std::fputs(penstock::kUsage, stdout);
    return 0;
  }
  penstock::set_log_source("penstock-worker", options->name);
  penstock::set_log(options->log);
  if (const auto confined = penstock::confine(); !confined) {
    penstock::write_log(penstock::LogLevel::kWarn, confined.error().message);
  }
  if (options->connect.empty()) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // also in the middle of a step that never ends
  }
  if (options->check_device) {
    const auto works = penstock::check_device(*options);
    if (!works) {
      std::fprintf(stderr, "penstock-worker: %s\n", works.error().message.c_str());
    }
    return works ? 0 : 1;
  }
  return penstock::serve(*options);
}
