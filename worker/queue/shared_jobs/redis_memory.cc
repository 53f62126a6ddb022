#include "worker/queue/shared_jobs/redis_memory.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "shared/redis/answer.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

double number_in(std::string_view info, std::string_view name) {
  const std::string_view text = redis::info_of(info, name);
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return static_cast<double>(number);
}

}  // namespace

// Buffers of replicas do not count.
double share_taken(std::string_view info) {
  const double most = number_in(info, "maxmemory");
  const double taken =
      number_in(info, "used_memory") - number_in(info, "mem_not_counted_for_evict");
  return most > 0 ? taken / most : 0;
}

struct RedisMemory::Asked {
  RedisMemory& self;
  std::shared_ptr<bool> alive;
  std::string server;
};

void RedisMemory::look(const std::string& key) {
  const redis::Address* const at = servers_.server_of(key);
  if (at == nullptr) {
    return;
  }
  const auto answered = [](void* context, const redisReply* reply) noexcept {
    const std::unique_ptr<Asked> asked(static_cast<Asked*>(context));
    if (*asked->alive && reply != nullptr && redis::is_text(*reply)) {
      asked->self.told(asked->server, redis::text_of(*reply));
    }
  };
  auto asked = std::make_unique<Asked>(Asked{*this, alive_, text_of(*at)});
  const std::string_view words[] = {"INFO", "memory"};
  if (servers_.ask(key, words, answered, asked.get())) {
    static_cast<void>(asked.release());
  }
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
