#include "worker/queue/upgrade.h"

#include <algorithm>
#include <filesystem>

#include "shared/base/version.h"
#include "worker/queue/handover/record.h"
#include "worker/queue/store/schema.h"

namespace penstock::queue {
namespace {

std::string whole_path(const std::string& path) {
  std::error_code unknown;
  const auto whole = std::filesystem::absolute(path, unknown);
  return path.empty() || unknown ? path : whole.lexically_normal().string();
}

// What changes with a restart only.
std::string shared_of(const Config& config) {
  const RedisConfig& redis = config.redis;
  std::string text;
  for (const RedisConfig::At& at : redis.at) {
    text += at.path + "|" + at.host + "|" + std::to_string(at.port) + " ";
  }
  text += std::to_string(redis.database) + " " + redis.sentinel + " " + redis.user + " " +
          redis.password_file + " " + redis.prefix + " " + redis.host + " " +
          std::to_string(redis.replicas) + " " + std::to_string(redis.events);
  for (const QueueConfig& queue : config.queues) {
    text += queue.shared ? " " + queue.name : "";
  }
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

SuccessorSays says_of(const Config& config) {
  return {.version = version(),
          .oldest_format = kOldestFormat,
          .newest_format = kNewestFormat,
          .schema = static_cast<uint64_t>(schema_version()),
          .socket = whole_path(config.socket),
          .state = whole_path(config.state),
          .shared = shared_of(config)};
}

}  // namespace penstock::queue
