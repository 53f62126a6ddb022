// top: the status, live.
#include <ctime>
#include <optional>

#include "shared/base/clock.h"
#include "worker/ctl/operate.h"
#include "worker/ctl/rates.h"
#include "worker/ctl/screen.h"
#include "worker/ctl/status_table.h"

namespace penstock::ctl {
namespace {

constexpr int kEachMs = 1000;

// Asks over one connection, and over a new one when that has broken.
class Watcher {
 public:
  explicit Watcher(std::string socket) : socket_(std::move(socket)) {}

  // The screen's text: the status, or why there is none.
  std::string look() {
    const auto status = ask();
    if (!status) {
      penstockd_.reset();
      return status.error().message + "\n\nTrying again each second; q leaves.\n";
    }
    const std::string rates = rates_.since_last(*status, monotonic_ns());
    const auto table = status_table(*status);
    return (table ? *table : table.error().message + "\n") + rates + "\n\nq leaves\n";
  }

 private:
  Result<std::string> ask() {
    if (!penstockd_) {
      auto connected = Penstockd::connect(socket_);
      if (!connected) {
        return connected.error();
      }
      penstockd_.emplace(*std::move(connected));
    }
    return penstockd_->status();
  }

  std::string socket_;
  std::optional<Penstockd> penstockd_;
  Rates rates_;
};

}  // namespace

Outcome run_top(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("top takes no '" + arguments.words()[0] + "'");
  }
  // One that cannot be reached at all is told before the screen is taken.
  return with_penstockd(arguments, [&](Penstockd&) {
    Watcher watcher(*socket_of(arguments));
    auto screen = Screen::take();
    if (!screen) {
      return failed(screen.error());
    }
    std::string text;
    for (auto event = Screen::Event::kNothing; event != Screen::Event::kQuit;
         event = screen->wait(kEachMs)) {
      if (event == Screen::Event::kNothing) {
        text = watcher.look();
      }
      screen->draw(text);
    }
    return Outcome{};
  });
}

}  // namespace penstock::ctl
