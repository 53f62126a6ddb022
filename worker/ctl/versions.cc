#include "worker/ctl/versions.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "shared/base/version.h"
#include "shared/redis/answer.h"
#include "worker/queue/config/redis_keys.h"

namespace penstock::ctl {
namespace {

using queue::Finding;
using Level = Finding::Level;

constexpr char kRestart[] =
    "systemctl restart penstockd: what was promised is kept, and goes on after it";
constexpr std::string_view kGone = " (deleted)";

// The file that the process runs, if another lies in its place now; else empty.
std::string replaced_program(const std::string& pid) {
  std::error_code none;
  const std::string exe = "/proc/" + pid + "/exe";
  std::string path = std::filesystem::read_symlink(exe, none).string();
  if (none) {
    return "";
  }
  if (path.ends_with(kGone)) {
    path.resize(path.size() - kGone.size());
    return path;
  }
  struct stat runs {
  }, lies{};
  const bool both = ::stat(exe.c_str(), &runs) == 0 && ::stat(path.c_str(), &lies) == 0;
  return both && (runs.st_ino != lies.st_ino || runs.st_dev != lies.st_dev) ? path : "";
}

// The libraries that it runs with and that are not on disk any more.
std::set<std::string> replaced_libraries(const std::string& pid) {
  std::set<std::string> names;
  std::ifstream maps("/proc/" + pid + "/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t at = line.find('/');
    if (at != line.npos && line.ends_with(kGone) && line.find(".so", at) != line.npos) {
      const size_t name = line.rfind('/') + 1;
      names.insert(line.substr(name, line.size() - kGone.size() - name));
    }
  }
  return names;
}

bool lives(JsonElement process) {
  const auto pid = static_cast<pid_t>(number_of(process, "pid"));
  return pid > 0 && (::kill(pid, 0) == 0 || errno == EPERM);
}

void look_at_programs(JsonElement status, std::vector<Finding>& findings) {
  const std::string pid = cell(status, "pid");
  if (const std::string path = replaced_program(pid); !path.empty()) {
    findings.push_back({Level::kWarn, "program",
                        fmt::format("{} was replaced since penstockd {} was started from it", path,
                                    cell(status, "version")),
                        kRestart});
  }
  if (const auto libraries = replaced_libraries(pid); !libraries.empty()) {
    findings.push_back(
        {Level::kWarn, "libraries",
         fmt::format("penstockd runs with what was replaced since: {}", fmt::join(libraries, ", ")),
         kRestart});
  }
  std::vector<std::string> workers;
  for (const JsonElement worker : elements_of(status, "workers")) {
    if (lives(worker) && !replaced_program(cell(worker, "pid")).empty()) {
      workers.push_back(cell(worker, "name"));
    }
  }
  if (!workers.empty()) {
    findings.push_back(
        {Level::kWarn, "programs of workers",
         fmt::format("were replaced since they were started: {}", fmt::join(workers, ", ")),
         kRestart});
  }
}

void look_at_edges(JsonElement status, std::vector<Finding>& findings) {
  const std::string runs = cell(status, "version");
  const auto protocol = object_of(status, "protocol");
  size_t same = 0;
  for (const JsonElement edge : elements_of(status, "edges")) {
    if (!lives(edge)) {
      continue;
    }
    const std::string version = cell(edge, "version");
    const std::string what = fmt::format("Nginx process {} has the module of {}", cell(edge, "pid"),
                                         version == "-" ? "an older Penstock" : version);
    if (truth_of(edge, "refused", false)) {
      findings.push_back(
          {Level::kBad, "module",
           fmt::format("{}, which speaks protocol {}; penstockd {} speaks {} to {}", what,
                       cell(edge, "protocol"), runs, protocol ? cell(*protocol, "first") : "?",
                       protocol ? cell(*protocol, "newest") : "?"),
           "bring the older of both up to date, and restart it"});
    } else if (version != runs) {
      findings.push_back({Level::kWarn, "module",
                          fmt::format("{}, and penstockd is {}", what, runs),
                          "restart what was upgraded: systemctl restart nginx, or penstockd"});
    } else {
      ++same;
    }
  }
  if (same > 0) {
    findings.push_back(
        {Level::kOk, "module", fmt::format("the Nginx that came here has that of {}", runs), {}});
  }
}

using Redis = std::unique_ptr<redisContext, decltype(&::redisFree)>;
using Reply = std::unique_ptr<void, decltype(&::freeReplyObject)>;

Reply ask(const Redis& redis, const std::vector<std::string>& words) {
  std::vector<const char*> bytes;
  std::vector<size_t> sizes;
  for (const std::string& word : words) {
    bytes.push_back(word.data());
    sizes.push_back(word.size());
  }
  return {
      ::redisCommandArgv(redis.get(), static_cast<int>(words.size()), bytes.data(), sizes.data()),
      &::freeReplyObject};
}

// What INFO says; an Error where it cannot be asked.
Result<std::string> redis_info(const queue::RedisConfig& config, const queue::RedisConfig::At& at) {
  constexpr timeval kWait{.tv_sec = 2, .tv_usec = 0};
  const Redis redis(at.path.empty() ? ::redisConnectWithTimeout(at.host.c_str(), at.port, kWait)
                                    : ::redisConnectUnixWithTimeout(at.path.c_str(), kWait),
                    &::redisFree);
  if (redis == nullptr || redis->err != 0) {
    return Error{redis == nullptr ? "out of memory" : redis->errstr};
  }
  ::redisSetTimeout(redis.get(), kWait);
  if (!config.password_file.empty() && config.sentinel.empty()) {
    const auto password = queue::read_password(config);
    if (!password) {
      return password.error();
    }
    config.user.empty() ? ask(redis, {"AUTH", *password})
                        : ask(redis, {"AUTH", config.user, *password});
  }
  const Reply reply = ask(redis, {"INFO"});
  const auto* const told = static_cast<const redisReply*>(reply.get());
  if (told == nullptr || told->type != REDIS_REPLY_STRING) {
    return Error{told == nullptr ? redis->errstr : std::string(told->str, told->len)};
  }
  std::string info(told->str, told->len);
  return redis::info_of(info, "redis_version").empty()
             ? Result<std::string>(Error{"INFO tells no version"})
             : info;
}

// While it forks, to write its data anew, it answers nobody. Huge pages it turns off itself.
void look_at_forks(std::string_view info, const std::string& where,
                   std::vector<Finding>& findings) {
  constexpr uint64_t kSlowUs = 100'000;
  const uint64_t took_us = redis::number_in_info(info, "latest_fork_usec");
  if (took_us > kSlowUs) {
    findings.push_back(
        {Level::kWarn, "Redis",
         fmt::format("{} answered nobody for {} ms when it forked last", where, took_us / 1000),
         "fewer rewrites (auto-aof-rewrite-min-size), or less data in it"});
  }
}

}  // namespace

void look_at_versions(JsonElement status, std::vector<Finding>& findings) {
  const std::string runs = cell(status, "version");
  if (runs != version()) {
    findings.push_back(
        {Level::kWarn, "version",
         fmt::format("penstockd {} runs, and this penstockctl is {}", runs, version()), kRestart});
  }
  look_at_programs(status, findings);
  look_at_edges(status, findings);
}

void look_at_stores(const queue::RedisConfig& redis, std::vector<Finding>& findings) {
  findings.push_back({Level::kOk, "SQLite", fmt::format("{}, here", ::sqlite3_libversion()), {}});
  for (const auto& at : redis.at) {
    const std::string where = at.path.empty() ? fmt::format("{}:{}", at.host, at.port) : at.path;
    const auto info = redis_info(redis, at);
    if (!info) {
      findings.push_back(
          {Level::kWarn, "Redis",
           fmt::format("{} does not tell its version: {}", where, info.error().message),
           "look whether it is there, and lets this host in"});
      continue;
    }
    findings.push_back({Level::kOk,
                        "Redis",
                        fmt::format("{} at {}", redis::info_of(*info, "redis_version"), where),
                        {}});
    look_at_forks(*info, where, findings);
  }
}

}  // namespace penstock::ctl
