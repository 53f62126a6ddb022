#include "worker/ctl/watch.h"

#include "worker/ctl/screen.h"

namespace penstock::ctl {
namespace {

constexpr int kEachMs = 1000;

}  // namespace

Outcome watch(const Command& command, const Arguments& arguments) {
  Outcome outcome = command.run(arguments);
  if (outcome.exit_status != Outcome::kFine) {
    return outcome;  // told before the screen is taken
  }
  auto screen = Screen::take();
  if (!screen) {
    return failed(screen.error());
  }
  for (auto event = Screen::Event::kRedraw; event != Screen::Event::kQuit;
       event = screen->wait(kEachMs)) {
    if (event == Screen::Event::kNothing) {
      outcome = command.run(arguments);
    }
    screen->draw(outcome.text + "\nq leaves\n");
  }
  return Outcome{};
}

}  // namespace penstock::ctl
