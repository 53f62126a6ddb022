// The terminal, taken over for a while: another screen without a cursor, keys as they are pressed,
// and signals as events. All of it is put back when this goes out of scope.
//
// Only sequences of ECMA-48 and xterm's alternate screen are used, which tmux and screen know, too.
#pragma once

#include <termios.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/result.h"

namespace penstock::ctl {

// `text` cut to a window: so many columns and rows at most, every line cleared to its end.
std::string frame_of(std::string_view text, size_t columns, size_t rows);

class Screen {
 public:
  // Takes stdin and stdout. An Error when these are no terminal.
  static Result<Screen> take();
  Screen(Screen&& other) noexcept;
  Screen& operator=(Screen&&) = delete;
  ~Screen();

  void draw(std::string_view text) const;

  enum class Event : uint8_t { kNothing, kRedraw, kQuit };
  // Waits for a key, a signal or the end of the time. q, Ctrl-C, TERM and the end of the terminal
  // are kQuit.
  Event wait(int timeout_ms) const;

 private:
  Screen(Fd signals, const termios& before) : signals_(std::move(signals)), before_(before) {}

  Fd signals_;
  termios before_;
};

}  // namespace penstock::ctl
