#include "worker/queue/config/redis_keys.h"

#include <arpa/inet.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <climits>
#include <optional>

#include "shared/base/secret_file.h"
#include "worker/queue/config/names.h"

namespace penstock::queue {
namespace {

constexpr int kPort = 6379;
constexpr int kMostDatabase = 1'000'000;
constexpr size_t kMostServers = 64;
constexpr int kMostReplicas = 100;
constexpr size_t kMostPassword = 512;
constexpr std::string_view kUrlRule =
    "must be redis://HOST:PORT/DATABASE, with commas between several HOST:PORT, or unix:PATH";

std::optional<int> number(std::string_view text, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value >= 0 && value <= most ? std::optional(value) : std::nullopt;
}

// As RFC 1123 has them, or nearly: letters, digits, "-" and "_", with dots between.
bool is_name(std::string_view text) {
  constexpr size_t kMost = 253;
  const auto good = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  };
  return !text.empty() && text.size() <= kMost && std::all_of(text.begin(), text.end(), good) &&
         text.front() != '.' && text.find("..") == std::string_view::npos &&
         std::isalpha(
             static_cast<unsigned char>(text[text.find_last_of('.', text.size() - 2) + 1])) != 0;
}

// "10.0.0.5:6379", "[::1]:6379", "redis.example.com"
std::optional<RedisConfig::At> address(std::string_view text) {
  const bool six = text.starts_with('[');
  const size_t end = six ? text.find(']') : std::min(text.find(':'), text.size());
  if (end == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string ip(text.substr(six ? 1 : 0, six ? end - 1 : end));
  const std::string_view rest = text.substr(six ? end + 1 : end);
  const int port = rest.empty()            ? kPort
                   : rest.starts_with(':') ? number(rest.substr(1), UINT16_MAX).value_or(0)
                                           : 0;
  std::array<unsigned char, sizeof(in6_addr)> bytes;
  const bool good =
      ::inet_pton(six ? AF_INET6 : AF_INET, ip.c_str(), bytes.data()) == 1 || (!six && is_name(ip));
  if (port == 0 || !good) {
    return std::nullopt;
  }
  return RedisConfig::At{.path = {}, .host = ip, .port = port};
}

// Nothing: it is good. Else what is wrong with it.
std::string read_url(std::string_view url, RedisConfig& redis) {
  constexpr std::string_view kTcp = "redis://";
  constexpr std::string_view kUnix = "unix:";
  if (url.starts_with("rediss://")) {
    return "must be redis:// or unix:, for Debian's hiredis, with which penstockd is built, has no "
           "TLS; have a proxy on this host speak it (stunnel: docs/MANY_HOSTS.md), and name that: "
           "unix:PATH or redis://127.0.0.1:PORT";
  }
  if (url.starts_with(kUnix)) {
    url.remove_prefix(kUnix.size());
    redis.at.push_back({.path = std::string(url), .host = {}, .port = 0});
    const bool fits = !url.empty() && url.size() < sizeof(sockaddr_un{}.sun_path);
    return fits ? "" : std::string(kUrlRule);
  }
  if (!url.starts_with(kTcp)) {
    return std::string(kUrlRule);
  }
  url.remove_prefix(kTcp.size());
  if (url.find('@') != std::string_view::npos) {
    return "names a user or a password; write `user` and `password_file`";
  }
  const size_t slash = std::min(url.find('/'), url.size());
  if (slash + 1 < url.size()) {
    const auto database = number(url.substr(slash + 1), kMostDatabase);
    if (!database) {
      return std::string(kUrlRule);
    }
    redis.database = *database;
  }
  std::string_view all = url.substr(0, slash);
  for (bool more = true; more;) {
    const size_t comma = all.find(',');
    const auto at = address(all.substr(0, comma));
    if (!at || redis.at.size() == kMostServers) {
      return std::string(kUrlRule);
    }
    redis.at.push_back(*at);
    more = comma != std::string_view::npos;
    all.remove_prefix(more ? comma + 1 : all.size());
  }
  return "";
}

// "fsync", "replicas:2"
void read_promise(Section& section, RedisConfig& redis) {
  constexpr std::string_view kReplicas = "replicas:";
  std::string promise = "fsync";
  section.text("promise", promise);
  int replicas = 0;
  if (promise.starts_with(kReplicas)) {
    replicas =
        number(std::string_view(promise).substr(kReplicas.size()), kMostReplicas).value_or(0);
  }
  if (promise != "fsync" && replicas == 0) {
    section.complain("promise",
                     "must be fsync, or replicas:N, N from 1 to " + std::to_string(kMostReplicas));
  }
  redis.replicas = static_cast<uint32_t>(replicas);
}

}  // namespace

Result<std::string> read_password(const RedisConfig& redis) {
  if (redis.password_file.empty()) {
    return std::string();
  }
  auto secret = read_secret_file(redis.password_file, kMostPassword);
  if (!secret) {
    return secret.error();
  }
  if (secret->is_too_open()) {
    return Error{redis.password_file + " can be read by others: chmod 640 it"};
  }
  std::string& text = secret->text;
  text.erase(text.find_last_not_of("\r\n") + 1);
  if (text.empty() || text.size() > kMostPassword || text.find('\n') != std::string::npos) {
    return Error{redis.password_file + " must hold the password, 1 to " +
                 std::to_string(kMostPassword) + " bytes in one line"};
  }
  return text;
}

RedisConfig read_redis(const YAML::Node& node, const std::string& file, bool open,
                       Complaints& complaints) {
  RedisConfig redis;
  if (!node.IsDefined()) {
    return redis;
  }
  Section section(node, "redis", complaints);
  std::string url;
  section.text("url", url);
  if (!section.has("url")) {
    section.complain("url", "is missing; it " + std::string(kUrlRule));
  } else if (const std::string wrong = read_url(url, redis); !wrong.empty()) {
    section.complain("url", wrong);
  }
  section.text("sentinel", redis.sentinel);
  const bool cluster = redis.sentinel.empty() && redis.at.size() > 1;
  if (cluster && redis.database != 0) {
    section.complain("url", "names a database; a cluster, which several addresses are, has one");
  }
  section.text("user", redis.user);
  section.text("password_file", redis.password_file);
  if (!redis.password_file.empty()) {
    redis.password_file = relative_to(file, redis.password_file);
    if (const auto password = read_password(redis); open && !password) {
      section.complain("password_file", password.error().message);
    }
  }
  section.text("prefix", redis.prefix);
  if (!good_name(redis.prefix)) {
    section.complain("prefix", name_rule());
  }
  char name[HOST_NAME_MAX + 1] = {};
  ::gethostname(name, HOST_NAME_MAX);
  redis.host = name;
  redis.host.resize(std::min(redis.host.size(), kMaxNameBytes));
  section.text("host", redis.host);
  if (section.has("host") && !good_name(redis.host)) {
    section.complain("host", name_rule());
  }
  section.number("events", redis.events, 1, 100'000'000);
  read_promise(section, redis);
  section.done();
  return redis;
}

}  // namespace penstock::queue
