// penstockd: the queue. See server.h.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "shared/base/log.h"
#include "shared/base/version.h"
#include "worker/queue/care/needs.h"
#include "worker/queue/config/load_config.h"
#include "worker/queue/link/roles.h"
#include "worker/queue/process/worker_command.h"
#include "worker/queue/server.h"
#include "worker/queue/upgrade.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsageError = 2;

constexpr char kUsage[] =
    "usage: penstockd -c FILE          serve as FILE says\n"
    "       penstockd -t -c FILE       check FILE and what it needs, and say what is wrong\n"
    "       penstockd -T -c FILE       show what is in force by FILE, with what it leaves out\n"
    "       penstockd -d OLD -c FILE   show what FILE changes of OLD\n"
    "       penstockd --version        say which penstockd this is (-V)\n"
    "       penstockd --takes-over -c FILE\n"
    "                                  say whether this one can take the place of one that runs\n"
    "HUP reloads FILE, TERM lets jobs finish and stops, USR2 has the program that penstockd was\n"
    "started as take its place.\n";

int usage() {
  std::fputs(kUsage, stderr);
  return kUsageError;
}

// Where the program is that was started, links as they are: an upgrade may turn them to another.
std::string path_of_program(const char* name) {
  std::error_code none;
  if (std::string_view(name).find('/') != std::string_view::npos) {
    return std::filesystem::absolute(name, none).string();
  }
  return std::filesystem::read_symlink("/proc/self/exe", none).string();
}

// As an earlier penstockd hands it over, if one does.
penstock::Result<std::unique_ptr<penstock::queue::Server>> open_server(
    penstock::queue::Config config, const std::string& path, int argc, char** argv) {
  auto record = penstock::queue::MappedRecord::from_environment();
  if (!record) {
    return record.error();
  }
  return penstock::queue::Server::open(
      std::move(config), path, {.program = path_of_program(argv[0]), .words = {argv, argv + argc}},
      *record);
}

int serve(penstock::queue::Config config, const std::string& path, int argc, char** argv) {
  penstock::set_log(config.log.settings);
  auto server = open_server(std::move(config), path, argc, argv);
  if (!server) {
    std::fprintf(stderr, "penstockd: %s\n", server.error().message.c_str());
    return kFailed;
  }
  return (*server)->run();
}

int check(const penstock::queue::Config& config, const std::string& path) {
  using penstock::queue::Finding;
  size_t wrong = 0;
  bool starts = true;
  for (const Finding& each : look_at_needs(config, penstock::queue::binary_beside_this(""))) {
    if (each.level != Finding::Level::kOk) {
      std::fprintf(stderr, "%s\n", line_of(each).c_str());
      ++wrong;
      starts = starts && !each.stops;
    }
  }
  const auto roles = penstock::queue::Roles::create(config.access, config.socket_group);
  if (starts && !roles) {
    std::fprintf(stderr, "bad: access: %s\n", roles.error().message.c_str());
    ++wrong;
    starts = false;
  }
  std::fprintf(stderr, "%s: configuration is good%s\n", path.c_str(),
               wrong == 0 ? ""
               : starts   ? ", but what it needs is not all in order"
                          : ", but penstockd would not start: see what is bad");
  return starts ? 0 : kFailed;
}

int say_takes_over(const penstock::queue::Config& config) {
  // What a reload only complains of would end a start.
  if (auto roles = penstock::queue::Roles::create(config.access, config.socket_group); !roles) {
    std::fprintf(stderr, "%s\n", roles.error().message.c_str());
    return kFailed;
  }
  std::fputs(text_of(penstock::queue::says_of(config)).c_str(), stdout);
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
  const bool takes_over = argc > 1 && std::string_view(argv[1]) == "--takes-over";
  if (takes_over) {
    optind = 2;
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
  const NamedFiles files = check_only || takes_over    ? NamedFiles::kOpened
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
  if (takes_over) {
    return say_takes_over(*config);
  }
  if (check_only) {
    return check(*config, path);
  }
  return serve(*std::move(config), path, argc, argv);
}
