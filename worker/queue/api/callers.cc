#include "worker/queue/api/callers.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "shared/base/units.h"

namespace penstock::queue {
namespace {

constexpr int kAcceptsPerTurn = 64;
constexpr int64_t kAcceptPauseNs = 100 * kNsPerMs;
constexpr rlim_t kOtherDescriptors = Callers::descriptors_of(0);
constexpr size_t kMaxStrangers = 64;
constexpr size_t kOperatorsSeats = 16;  // beyond max_connections, so that one can look

// Each connection takes a descriptor; asks for as many as may be had. Returns how many connections
// there are descriptors for: what else needs a file must find one.
size_t raise_descriptor_limit(uint32_t max_connections) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t wanted = Callers::descriptors_of(max_connections);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) {
    return max_connections;
  }
  // Of few, a half is for callers.
  const size_t most = limit.rlim_cur > 2 * kOtherDescriptors ? limit.rlim_cur - kOtherDescriptors
                                                             : limit.rlim_cur / 2;
  log(Level::kWarn,
      fmt::format("only {} files may be open: {} connections are taken, not the {} of "
                  "limits.max_connections; raise LimitNOFILE (ulimit -n)",
                  limit.rlim_cur, most, max_connections));
  return most;
}

}  // namespace

Callers::Callers(EventLoop& loop, ConnectionLoop& connections, Listener listener, Roles roles,
                 const Handlers& handlers, std::function<std::string()> status)
    : loop_(loop),
      connections_(connections),
      listener_(std::move(listener)),
      roles_(std::move(roles)),
      handlers_(handlers),
      status_(std::move(status)) {}

Callers::~Callers() {
  for (auto* const list : {&newcomers_, &callers_}) {
    for (CallerSession& caller : *list) {
      caller.say_goodbye("penstockd is being stopped");
    }
  }
}

Status Callers::listen(const Access& access) {
  Status listens = listener_.listen(access);
  return listens ? loop_.add(listener_.fd(), EPOLLIN, this) : listens;
}

void Callers::set_limits(const LimitsConfig& limits) {
  hello_timeout_ns_ = limits.hello_timeout_ns;
  most_ = raise_descriptor_limit(limits.max_connections);
}

void Callers::set_roles(Roles roles) {
  roles_ = std::move(roles);
  strangers_ = 0;
  for (auto* const list : {&newcomers_, &callers_}) {
    for (CallerSession& caller : *list) {
      caller.set_roles(roles_.peer_of(caller.fd()).roles);
      strangers_ += caller.peer().roles == 0 && !caller.greeted() ? 1 : 0;
    }
  }
}

void Callers::advance_to(int64_t now_ns) {
  for (CallerSession& each : newcomers_) {
    if (each.arrived_ns + hello_timeout_ns_ > now_ns) {
      break;
    }
    troubles_.line(Level::kWarn,
                   each.peer().text() + " was sent away: no HELLO came within " +
                       format_duration(hello_timeout_ns_),
                   now_ns);
    each.say_goodbye("no HELLO came");
  }
  if (accept_again_ns_ <= now_ns) {
    accept_again_ns_ = INT64_MAX;
    loop_.modify(listener_.fd(), EPOLLIN, this);
  }
}

int64_t Callers::next_event() const {
  return std::min(accept_again_ns_, newcomers_.empty()
                                        ? INT64_MAX
                                        : newcomers_.front().arrived_ns + hello_timeout_ns_);
}

void Callers::on_events(uint32_t) {
  connections_.read_clock();
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    Fd fd;
    switch (listener_.accept(fd)) {
      case Listener::Outcome::kAccepted:
        welcome(std::move(fd));
        break;
      case Listener::Outcome::kEmpty:
        return;
      case Listener::Outcome::kExhausted:
        return pause_accepting();
    }
  }
}

void Callers::welcome(Fd fd) {
  const Credentials peer = roles_.peer_of(fd.get());
  const bool has_room = has_room_for(peer);
  CallerSession& caller =
      newcomers_.emplace_back(connections_, std::move(fd), handlers_, *this, peer);
  caller.self = std::prev(newcomers_.end());
  strangers_ += peer.roles == 0 ? 1 : 0;
  if (!has_room) {
    troubles_.line(Level::kWarn,
                   peer.roles == 0 ? "a stranger's connection was refused: " + peer.text()
                                   : "a connection was refused: limits.max_connections is reached",
                   connections_.now_ns());
    caller.say_goodbye("too many connections");
  } else if (Status opened = caller.open(); !opened) {
    troubles_.line(Level::kWarn, opened.error().message, connections_.now_ns());
    caller.close();
  }
}

// Who may be nothing here is told so, but takes nobody's place.
bool Callers::has_room_for(const Credentials& peer) const {
  return connections() < most_ + (peer.is(kOperator) ? kOperatorsSeats : 0) &&
         (peer.roles != 0 || strangers_ < kMaxStrangers);
}

// Out of descriptors or memory: connections wait in the kernel's backlog, and the loop does not
// spin on a listener that stays readable.
void Callers::pause_accepting() {
  const int64_t now_ns = connections_.now_ns();
  troubles_.line(Level::kError,
                 "no connection can be accepted: out of descriptors or memory; raise LimitNOFILE",
                 now_ns);
  loop_.modify(listener_.fd(), 0, this);
  accept_again_ns_ = now_ns + kAcceptPauseNs;
}

void Callers::on_caller_closed(CallerSession& session) {
  if (session.greeted()) {
    callers_.erase(session.self);
    return;
  }
  strangers_ -= session.peer().roles == 0 ? 1 : 0;
  newcomers_.erase(session.self);
}

void Callers::on_greeted(CallerSession& session) {
  callers_.splice(callers_.end(), newcomers_, session.self);
}

void Callers::on_worker(CallerSession& session, std::string hello) {
  Connection::Released released = session.release();
  const Credentials peer = session.peer();
  newcomers_.erase(session.self);
  const Status attached = on_worker_connected(released.fd, hello.append(released.unread), peer.pid);
  if (!attached) {
    troubles_.line(Level::kWarn, peer.text() + " is no worker: " + attached.error().message,
                   connections_.now_ns());
    std::string goodbye;
    wire::append(goodbye, 0,
                 wire::Goodbye{.message = attached.error().message,
                               .drained = attached.error().kind == ErrorKind::kGone ? 1U : 0U});
    ::send(released.fd.get(), goodbye.data(), goodbye.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

void Callers::on_denied(std::string_view reason) {
  refusals_.line(Level::kWarn, "a connection was closed: " + std::string(reason),
                 connections_.now_ns());
}

void Callers::on_edge(const CallerSession& session, const wire::Hello& hello, bool refused) {
  edge_versions_.note(hello.name, hello.version, refused, session.peer().pid,
                      connections_.now_ns());
}

void Callers::on_refused(std::string_view who, std::string_view reason) {
  refusals_.line(Level::kWarn,
                 "a connection was closed: " + std::string(who) + " sent " + std::string(reason),
                 connections_.now_ns());
}

}  // namespace penstock::queue
