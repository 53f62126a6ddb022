#include "worker/queue/shared_jobs/redis_memory.h"

#include <fmt/format.h>

#include <utility>

#include "shared/redis/answer.h"
#include "worker/queue/shared_jobs/redis_question.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

// Buffers of replicas do not count.
double share_taken(std::string_view info) {
  const auto number = [info](std::string_view name) {
    return static_cast<double>(redis::number_in_info(info, name));
  };
  const double most = number("maxmemory");
  const double taken = number("used_memory") - number("mem_not_counted_for_evict");
  return most > 0 ? taken / most : 0;
}

void RedisMemory::look(const std::string& key) {
  const redis::Address* const at = servers_.server_of(key);
  if (at == nullptr) {
    return;
  }
  const std::string_view words[] = {"INFO", "memory"};
  ask(servers_, key, words, alive_, [this, server = text_of(*at)](const redisReply* reply) {
    if (reply != nullptr && redis::is_text(*reply)) {
      told(server, redis::text_of(*reply));
    }
  });
}

bool RedisMemory::is_nearly_full(std::string_view key) const {
  const redis::Address* const at = servers_.server_of(key);
  const auto found = at == nullptr ? full_.end() : full_.find(text_of(*at));
  return found != full_.end() && found->second;
}

void RedisMemory::told(const std::string& server, std::string_view info) {
  const double share = share_taken(info);
  bool& full = full_[server];
  if (const bool was = std::exchange(full, share >= (full ? kRoomAgain : kFull)); was != full) {
    log(full ? Level::kError : Level::kInfo,
        fmt::format("Redis at {} has taken {:.0f} % of its maxmemory: {}", server, share * 100,
                    full ? "no new jobs are let in" : "jobs are let in again"));
  }
}

}  // namespace penstock::queue
