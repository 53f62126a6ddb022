// What the commands have in common that ask penstockd.
#pragma once

#include <string>
#include <utility>

#include "worker/ctl/ask.h"
#include "worker/ctl/command.h"

namespace penstock::ctl {

// What comes of `use(penstockd)`, once it is reached.
template <typename Use>
Outcome with_penstockd(const Arguments& arguments, Use&& use) {
  if (arguments.has("socket") && arguments.has("config")) {
    return misused("give -s or -c, not both");
  }
  auto socket = socket_of(arguments);
  if (!socket) {
    return failed(socket.error());
  }
  auto penstockd = Penstockd::connect(*socket);
  return penstockd ? use(*penstockd) : failed(penstockd.error());
}

// The answer as it came with --json, else as `text(answer)` tells it to people.
template <typename Text>
Outcome tell(const Arguments& arguments, std::string answer, Text&& text) {
  if (arguments.has("json")) {
    return as_received(std::move(answer));
  }
  Result<std::string> told = text(answer);
  return told ? Outcome{Outcome::kFine, *std::move(told)} : failed(told.error());
}

// One ASK, told.
template <typename Text>
Outcome ask_and_tell(const Arguments& arguments, std::string_view method, const std::string& path,
                     const std::string& query, Text&& text) {
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    auto answer = penstockd.ask(method, path, query);
    return answer ? tell(arguments, *std::move(answer), text) : failed(answer.error());
  });
}

// Asks it to copy its state: the folder of the copy, once it is made, until DELETE /backup.
Result<std::string> make_copy(Penstockd& penstockd);

}  // namespace penstock::ctl
