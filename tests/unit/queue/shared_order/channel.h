// What is said on a channel of Redis, one message after the other.
#pragma once

#include <hiredis/hiredis.h>

#include <string>

namespace penstock::queue {

class Channel {
 public:
  Channel(const std::string& socket, const std::string& name)
      : redis_(::redisConnectUnix(socket.c_str())) {
    ::freeReplyObject(::redisCommand(redis_, "SUBSCRIBE %s", name.c_str()));
  }
  ~Channel() { ::redisFree(redis_); }
  std::string next() {
    void* reply = nullptr;
    if (::redisGetReply(redis_, &reply) != REDIS_OK) {
      return "gone";
    }
    const auto* const told = static_cast<redisReply*>(reply);
    std::string text(told->element[2]->str, told->element[2]->len);
    ::freeReplyObject(reply);
    return text;
  }

 private:
  redisContext* redis_;
};

}  // namespace penstock::queue
