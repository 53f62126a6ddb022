// penstockd: the queue. See server.h.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "shared/base/log.h"
#include "shared/base/version.h"
#include "worker/queue/care/needs.h"
#include "worker/queue/config/load_config.h"
#include "worker/queue/process/worker_command.h"
#include "worker/queue/server.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsageError = 2;

constexpr char kUsage[] =
    "usage: penstockd -c FILE          serve as FILE says\n"
    "       penstockd -t -c FILE       check FILE and what it needs, and say what is wrong\n"
    "       penstockd -T -c FILE       show what is in force by FILE, with what it leaves out\n"
    "       penstockd -d OLD -c FILE   show what FILE changes of OLD\n"
    "       penstockd --version        say which penstockd this is (-V)\n"
    "HUP reloads FILE, TERM lets jobs finish and stops.\n";

int usage() {
  std::fputs(kUsage, stderr);
  return kUsageError;
}

int serve(penstock::queue::Config config, const std::string& path) {
  penstock::set_log(config.log.settings);
  auto server = penstock::queue::Server::open(std::move(config), path);
  if (!server) {
    std::fprintf(stderr, "penstockd: %s\n", server.error().message.c_str());
    return kFailed;
  }
  return (*server)->run();
}

int check(const penstock::queue::Config& config, const std::string& path) {
  using penstock::queue::Finding;
  size_t wrong = 0;
  for (const Finding& each : look_at_needs(config, penstock::queue::binary_beside_this(""))) {
    if (each.level != Finding::Level::kOk) {
      std::fprintf(stderr, "%s\n", line_of(each).c_str());
      ++wrong;
    }
  }
  std::fprintf(stderr, "%s: configuration is good%s\n", path.c_str(),
               wrong == 0 ? "" : ", but what it needs is not all in order");
  return 0;
}

void show_settings(const penstock::queue::Config& config) {
  if (config.files.size() > 1) {
    for (const std::string& file : config.files) {
      std::printf("# %s\n", file.c_str());
    }
  }
  std::fputs(config.settings.text().c_str(), stdout);
}

}  // namespace

int main(int argc, char** argv) {
  penstock::set_log_source("penstockd");
  if (penstock::say_version("penstockd", argc, argv)) {
    return 0;
  }
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  std::string path;
  std::string old_path;
  bool check_only = false;
  bool show = false;
  for (int option; (option = ::getopt(argc, argv, "c:d:tT")) != -1;) {
    switch (option) {
      case 'c':
        path = optarg;
        break;
      case 'd':
        old_path = optarg;
        break;
      case 't':
        check_only = true;
        break;
      case 'T':
        show = true;
        break;
      default:
        return usage();
    }
  }
  if (path.empty() || optind != argc) {
    return usage();
  }
  using penstock::queue::NamedFiles;
  const NamedFiles files = check_only                  ? NamedFiles::kOpened
                           : show || !old_path.empty() ? NamedFiles::kNamed
                                                       : NamedFiles::kTrusted;
  const auto load = [&](const std::string& file) {
    auto config = penstock::queue::load_config(file, files);
    if (!config) {
      std::fprintf(stderr, "%s\n", config.error().message.c_str());
    }
    return config;
  };
  auto config = load(path);
  if (!config) {
    return kFailed;
  }
  if (show) {
    show_settings(*config);
  }
  if (!old_path.empty()) {
    const auto old = load(old_path);
    if (!old) {
      return kFailed;
    }
    for (const std::string& change : config->settings.changes_since(old->settings)) {
      std::printf("%s\n", change.c_str());
    }
  }
  if (show || !old_path.empty()) {
    return 0;
  }
  if (check_only) {
    return check(*config, path);
  }
  return serve(*std::move(config), path);
}
