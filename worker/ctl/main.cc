// penstockctl: the operator's tool.
#include <getopt.h>

#include <cstdio>
#include <string>

#include "worker/ctl/ask.h"
#include "worker/ctl/status_table.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsageError = 2;
constexpr char kUsualSocket[] = "/run/penstock/penstock.sock";

int usage() {
  std::fprintf(stderr,
               "usage: penstockctl status [--json] [-s SOCKET | -c FILE]\n"
               "\n"
               "  status      queues, workers and counters of a running penstockd\n"
               "  --json      as penstockd says it, for programs\n"
               "  -s SOCKET   where penstockd listens (%s)\n"
               "  -c FILE     a penstock.yaml that says where\n"
               "In this version, status is the only command.\n",
               kUsualSocket);
  return kUsageError;
}

int fail(const penstock::Error& error) {
  std::fprintf(stderr, "penstockctl: %s\n", error.message.c_str());
  return kFailed;
}

int status(const std::string& socket, bool json) {
  auto answer = penstock::ctl::ask_status(socket);
  if (!answer) {
    return fail(answer.error());
  }
  if (json) {
    std::printf("%s\n", answer->c_str());
    return 0;
  }
  const auto table = penstock::ctl::status_table(*answer);
  if (!table) {
    return fail(table.error());
  }
  std::fputs(table->c_str(), stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr option kLong[] = {{"json", 0, nullptr, 'j'}, {nullptr, 0, nullptr, 0}};
  std::string socket;
  std::string config;
  bool json = false;
  for (int which; (which = ::getopt_long(argc, argv, "s:c:", kLong, nullptr)) != -1;) {
    switch (which) {
      case 's':
        socket = optarg;
        break;
      case 'c':
        config = optarg;
        break;
      case 'j':
        json = true;
        break;
      default:
        return usage();
    }
  }
  const bool both = !socket.empty() && !config.empty();
  if (optind + 1 != argc || std::string(argv[optind]) != "status" || both) {
    return usage();
  }
  if (!config.empty()) {
    auto found = penstock::ctl::socket_of(config);
    if (!found) {
      return fail(found.error());
    }
    socket = *found;
  }
  return status(socket.empty() ? kUsualSocket : socket, json);
}
