#include "worker/queue/webhooks/program.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace penstock::queue {
namespace {

// A file in memory that has this text, to be read from its beginning.
Result<Fd> file_of(std::string_view text) {
  Fd file(::memfd_create("notice", MFD_CLOEXEC));
  size_t written = 0;
  while (file.valid() && written < text.size()) {
    const ssize_t n = ::write(file.get(), text.data() + written, text.size() - written);
    if (n <= 0) {
      break;
    }
    written += static_cast<size_t>(n);
  }
  if (written < text.size() || !file.valid() || ::lseek(file.get(), 0, SEEK_SET) != 0) {
    return Error{std::string("there is no memory for its input: ") + std::strerror(errno)};
  }
  return file;
}

}  // namespace

Result<std::unique_ptr<Program>> Program::start(EventLoop& loop,
                                                const std::vector<std::string>& command,
                                                const std::vector<std::string>& environment,
                                                std::string_view input) {
  const auto file = file_of(input);
  if (!file) {
    return file.error();
  }
  auto spawned = spawn_reader(command, environment, file->get());
  if (!spawned) {
    return spawned.error();
  }
  std::unique_ptr<Program> program(new Program(loop, *std::move(spawned)));
  if (Status added = loop.add(program->output_.get(), EPOLLIN, program.get()); !added) {
    program->output_.reset();
    return added.error();
  }
  return program;
}

Program::Program(EventLoop& loop, Spawned spawned)
    : loop_(loop), child_(spawned.child), output_(std::move(spawned.socket)) {}

Program::~Program() {
  child_.kill();
  close();
}

bool Program::reap() {
  if (!child_.reap()) {
    return false;
  }
  if (output_.valid()) {
    read();
  }
  return true;
}

// Some at a time: a program that says much holds up nobody.
void Program::read() {
  constexpr int kReads = 16;
  char piece[4096];
  for (int i = 0; i < kReads; ++i) {
    const ssize_t n = ::read(output_.get(), piece, sizeof piece);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
      return close();
    }
    if (n < 0) {
      return;
    }
    said_.append(piece, std::min(static_cast<size_t>(n), kMostSaid - said_.size()));
  }
}

void Program::close() {
  if (output_.valid()) {
    loop_.remove(output_.get(), this);
    output_.reset();
  }
}

}  // namespace penstock::queue
