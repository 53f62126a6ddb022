#include "worker/ctl/screen.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>

#include <cerrno>
#include <cstring>

namespace penstock::ctl {
namespace {

constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l";
constexpr std::string_view kLeave = "\x1b[?25h\x1b[?1049l";
constexpr std::string_view kHome = "\x1b[H";
constexpr std::string_view kToEndOfLine = "\x1b[K";
constexpr std::string_view kToEndOfScreen = "\x1b[J";

void put(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (size <= 0 && errno != EINTR) {
      return;
    }
    bytes.remove_prefix(size > 0 ? static_cast<size_t>(size) : 0);
  }
}

sigset_t told_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) {
    sigaddset(&set, number);
  }
  return set;
}

bool begins_character(char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }

// The first `columns` characters.
std::string_view clipped(std::string_view line, size_t columns) {
  size_t at = 0;
  for (size_t seen = 0; at < line.size(); ++at) {
    if (begins_character(line[at]) && ++seen > columns) {
      break;
    }
  }
  return line.substr(0, at);
}

}  // namespace

std::string frame_of(std::string_view text, size_t columns, size_t rows) {
  std::string out;
  for (size_t row = 0; row < rows && !text.empty(); ++row) {
    const size_t end = std::min(text.find('\n'), text.size());
    out.append(row == 0 ? "" : "\r\n").append(clipped(text.substr(0, end), columns));
    out.append(kToEndOfLine);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

Result<Screen> Screen::take() {
  termios before{};
  if (::isatty(STDOUT_FILENO) == 0 || ::tcgetattr(STDIN_FILENO, &before) != 0) {
    return Error{"this needs a terminal; `status --json` is for programs"};
  }
  const sigset_t set = told_signals();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  Fd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) {
    return Error{std::string("signalfd failed: ") + std::strerror(errno)};
  }
  termios keys = before;
  keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  ::tcsetattr(STDIN_FILENO, TCSANOW, &keys);
  put(kEnter);
  return Screen(std::move(signals), before);
}

Screen::Screen(Screen&& other) noexcept
    : signals_(std::move(other.signals_)), before_(other.before_) {}

Screen::~Screen() {
  if (signals_.valid()) {
    put(kLeave);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
}

void Screen::draw(std::string_view text) const {
  winsize size{};
  ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  const size_t columns = size.ws_col > 0 ? size.ws_col : 80;
  const size_t rows = size.ws_row > 0 ? size.ws_row : 24;
  put(std::string(kHome) + frame_of(text, columns, rows) + std::string(kToEndOfScreen));
}

Screen::Event Screen::wait(int timeout_ms) const {
  pollfd ready[] = {{STDIN_FILENO, POLLIN, 0}, {signals_.get(), POLLIN, 0}};
  if (::poll(ready, 2, timeout_ms) <= 0) {
    return Event::kNothing;
  }
  signalfd_siginfo told{};
  if (ready[1].revents != 0 && ::read(signals_.get(), &told, sizeof told) == sizeof told) {
    return told.ssi_signo == SIGWINCH  ? Event::kRedraw
           : told.ssi_signo == SIGTSTP ? Event::kNothing
                                       : Event::kQuit;
  }
  char key = 0;
  const bool ended = ready[0].revents != 0 && ::read(STDIN_FILENO, &key, 1) <= 0;
  return ended || key == 'q' || key == 'Q' ? Event::kQuit
         : key == '\0'                     ? Event::kNothing
                                           : Event::kRedraw;
}

}  // namespace penstock::ctl
