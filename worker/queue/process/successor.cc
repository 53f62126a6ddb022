#include "worker/queue/process/successor.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>

namespace penstock::queue {
namespace {

constexpr std::string_view kFirst = "takes-over";

// Takes a line off the front.
std::string_view next_line(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

bool read_formats(std::string_view text, SuccessorSays& says) {
  const char* const end = text.data() + text.size();
  const auto [middle, bad] = std::from_chars(text.data(), end, says.oldest_format);
  if (bad != std::errc() || middle == end || *middle != ' ') {
    return false;
  }
  const auto [last, worse] = std::from_chars(middle + 1, end, says.newest_format);
  return worse == std::errc() && last == end && says.oldest_format <= says.newest_format;
}

}  // namespace

Result<SuccessorSays> parse_successor(std::string_view text) {
  SuccessorSays says;
  if (next_line(text) != kFirst) {
    return Error{"it says nothing of taking over"};
  }
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    const std::string_view word = line.substr(0, line.find(' '));
    const std::string_view rest = line.substr(std::min(word.size() + 1, line.size()));
    if (word == "formats" && !read_formats(rest, says)) {
      return Error{"its line on formats is none"};
    }
    if (word == "schema") {
      std::from_chars(rest.data(), rest.data() + rest.size(), says.schema);
    }
    for (const auto& [name, value] : {std::pair{"version", &says.version},
                                      {"socket", &says.socket},
                                      {"state", &says.state},
                                      {"shared", &says.shared}}) {
      if (word == name) {
        *value = rest;
      }
    }
  }
  if (says.version.empty() || says.newest_format == 0) {
    return Error{"it does not say its version, or which formats it reads"};
  }
  return says;
}

std::string text_of(const SuccessorSays& says) {
  return std::string(kFirst) + "\nversion " + says.version + "\nformats " +
         std::to_string(says.oldest_format) + " " + std::to_string(says.newest_format) +
         "\nschema " + std::to_string(says.schema) + "\nsocket " + says.socket + "\nstate " +
         says.state + "\nshared " + says.shared + "\n";
}

Result<std::unique_ptr<Successor>> Successor::ask(EventLoop& loop, const std::string& program,
                                                  const std::string& config, int64_t now_ns,
                                                  OnSaid on_said) {
  const Fd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  auto spawned = spawn_reader({program, "--takes-over", "-c", config}, {}, nothing.get());
  if (!spawned) {
    return spawned.error();
  }
  std::unique_ptr<Successor> successor(
      new Successor(loop, *std::move(spawned), program, now_ns + kTimeoutNs, std::move(on_said)));
  if (Status added = loop.add(successor->socket_.get(), EPOLLIN, successor.get()); !added) {
    return added.error();
  }
  return successor;
}

Successor::Successor(EventLoop& loop, Spawned spawned, std::string program, int64_t ends_ns,
                     OnSaid on_said)
    : loop_(loop),
      child_(spawned.child),
      socket_(std::move(spawned.socket)),
      program_(std::move(program)),
      ends_ns_(ends_ns),
      on_said_(std::move(on_said)) {}

Successor::~Successor() {
  close();
  child_.kill();
}

void Successor::close() {
  if (socket_.valid()) {
    loop_.remove(socket_.get(), this);
    socket_.reset();
  }
}

void Successor::on_events(uint32_t) {
  read();
  conclude();
}

void Successor::read() {
  char some[4096];
  while (socket_.valid()) {
    const ssize_t n = ::recv(socket_.get(), some, sizeof some, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
      return;
    }
    if (n <= 0) {
      return close();
    }
    text_.append(some, std::min(static_cast<size_t>(n), kMostText - text_.size()));
  }
}

void Successor::reap() {
  if (child_.reap()) {
    read();
    close();  // whoever inherited it says nothing that counts
    conclude();
  }
}

void Successor::advance_to(int64_t now_ns) {
  if (ends_ns_ <= now_ns) {
    ends_ns_ = INT64_MAX;
    late_ = true;
    child_.kill();
  }
}

// Once it has ended, and all that it said was read.
void Successor::conclude() {
  if (child_.lives() || socket_.valid()) {
    return;
  }
  const OnSaid on_said = std::move(on_said_);
  if (late_ || !child_.succeeded()) {
    return on_said(Error{why()});
  }
  auto says = parse_successor(text_);
  on_said(says ? std::move(says) : Error{program_ + ": " + says.error().message});
}

std::string Successor::why() const {
  std::string said = text_.substr(0, text_.find_last_not_of(" \n") + 1);
  if (late_) {
    return program_ + " did not say within 20 s whether it can take over";
  }
  return program_ + " cannot take over: it " + child_.end() + (said.empty() ? "" : ": " + said);
}

}  // namespace penstock::queue
