// A question to the Redis of a queue, by whoever may be gone when the answer comes.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "shared/redis/servers.h"

namespace penstock::queue {

// As Servers::ask(). `then` is told the answer while `*alive`; nullptr: it did not come.
inline void ask(redis::Servers& servers, std::string_view key,
                std::span<const std::string_view> words, const std::shared_ptr<bool>& alive,
                std::function<void(const redisReply*)> then) {
  struct Asked {
    std::shared_ptr<bool> alive;
    std::function<void(const redisReply*)> then;
  };
  const auto answered = [](void* context, const redisReply* reply) noexcept {
    const std::unique_ptr<Asked> asked(static_cast<Asked*>(context));
    if (*asked->alive) {
      asked->then(reply);
    }
  };
  auto asked = std::make_unique<Asked>(Asked{alive, std::move(then)});
  if (servers.ask(key, words, answered, asked.get())) {
    static_cast<void>(asked.release());
  }
}

}  // namespace penstock::queue
