#include "shared/redis/link.h"

#include <hiredis/sds.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <string>

namespace penstock::redis {
namespace {

// hiredis ends the process by that.
constexpr char kUnasked[] = "it answers what it was not asked";

}  // namespace

Link::~Link() {
  close();
  loop_.clear_timer();
}

void Link::open(const Address& to) noexcept {
  to_ = to;
  ended_ = connected_ = false;
  if (!to_.path.empty() || is_number(to_.host)) {
    connect(to_.host.c_str());
  } else if (!loop_.find(to_.host, *this)) {
    end("its name cannot be looked up: give http{} a resolver, or have addresses announced");
  }
}

void Link::on_found(std::string_view ip) noexcept {
  ip.empty() ? end("no address is found for its name") : connect(std::string(ip).c_str());
}

void Link::connect(const char* host) noexcept {
  redis_ = to_.path.empty() ? redisAsyncConnect(host, to_.port)
                            : redisAsyncConnectUnix(to_.path.c_str());
  if (redis_ == nullptr || redis_->err != 0) {
    return end(redis_ == nullptr ? "no memory" : redis_->errstr);
  }
  reading_ = writing_ = false;
  pending_ = 0;
  sent_ = received_ = 0;
  if (!loop_.open(redis_->c.fd, *this)) {
    return end("no connections are left in this process: raise worker_connections");
  }
  attach();
  user_.on_open();
}

void Link::attach() noexcept {
  redis_->data = this;
  redis_->ev.data = this;
  // hiredis says what it waits for; its cleanup comes before it closes the descriptor.
  redis_->ev.addRead = [](void* mine) {
    auto& self = *static_cast<Link*>(mine);
    self.reading_ = true;
    self.want();
  };
  redis_->ev.delRead = [](void* mine) {
    auto& self = *static_cast<Link*>(mine);
    self.reading_ = false;
    self.want();
  };
  redis_->ev.addWrite = [](void* mine) {
    auto& self = *static_cast<Link*>(mine);
    self.writing_ = true;
    self.want();
  };
  redis_->ev.delWrite = [](void* mine) {
    auto& self = *static_cast<Link*>(mine);
    self.writing_ = false;
    self.want();
  };
  redis_->ev.cleanup = [](void* mine) { static_cast<Link*>(mine)->loop_.close(); };
  redisAsyncSetConnectCallback(redis_, [](const redisAsyncContext* redis, int status) {
    auto& self = *static_cast<Link*>(redis->data);
    if (status == REDIS_OK) {
      self.connected_ = true;
    } else {
      self.end(redis->errstr);
      self.redis_ = nullptr;  // hiredis frees it
    }
  });
  redisAsyncSetDisconnectCallback(redis_, [](const redisAsyncContext* redis, int) {
    auto& self = *static_cast<Link*>(redis->data);
    if (self.redis_ == redis) {
      self.end(redis->err == 0 ? "the connection ended" : redis->errstr);
      self.redis_ = nullptr;
    }
  });
}

void Link::on_reply(redisAsyncContext* redis, void* reply, void* what) noexcept {
  auto& self = *static_cast<Link*>(redis->data);
  self.user_.on_reply(what, static_cast<const redisReply*>(reply));
  if (reply != nullptr && --self.pending_ == 0 && redis->c.reader->pos < redis->c.reader->len) {
    self.end(kUnasked);
    redisAsyncFree(redis);  // once this has returned
  }
}

void Link::on_readable() noexcept {
  char byte = 0;
  if (connected_ && pending_ == 0 && ::recv(redis_->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
    return end(kUnasked);
  }
  ++received_;
  inside_ = true;
  redisAsyncHandleRead(redis_);
  inside_ = false;
  if (ended_) {
    close();
  }
}

void Link::on_writable() noexcept {
  inside_ = true;
  redisAsyncHandleWrite(redis_);
  inside_ = false;
  if (ended_) {
    close();
  }
}

bool Link::send(std::span<const std::string_view> words, void* what) noexcept {
  std::array<const char*, 8> texts;
  std::array<size_t, 8> sizes;
  for (size_t i = 0; i < words.size(); ++i) {
    texts[i] = words[i].data();
    sizes[i] = words[i].size();
  }
  char* bytes = nullptr;
  const int size =
      redisFormatCommandArgv(&bytes, static_cast<int>(words.size()), texts.data(), sizes.data());
  const bool sent = size >= 0 && send({bytes, static_cast<size_t>(size)}, what);
  redisFreeCommand(bytes);
  return sent;
}

bool Link::send(std::string_view bytes, void* what) noexcept {
  const bool sent =
      !ended_ && redis_ != nullptr &&
      redisAsyncFormattedCommand(redis_, on_reply, what, bytes.data(), bytes.size()) == REDIS_OK;
  pending_ += sent ? 1 : 0;
  sent_ += sent ? bytes.size() : 0;
  return sent;
}

// Some is hiredis's to write, and some the kernel's to bring there.
uint64_t Link::taken() const noexcept {
  int on_its_way = 0;
  if (ended_ || redis_ == nullptr || ::ioctl(redis_->c.fd, SIOCOUTQ, &on_its_way) != 0) {
    return 0;
  }
  const uint64_t left = sdslen(redis_->c.obuf) + static_cast<uint64_t>(on_its_way);
  return sent_ - std::min(sent_, left);
}

void Link::flush() noexcept {
  if (redis_ != nullptr && !ended_ && !inside_) {
    inside_ = true;
    redisAsyncHandleWrite(redis_);
    inside_ = false;
  }
}

void Link::end(std::string_view why) noexcept {
  if (ended_) {
    return;
  }
  const std::string text(why);  // the context may go first
  if (!inside_) {
    close();
  }
  ended_ = true;
  user_.on_end(text);
}

// What is pending is answered with nullptr by hiredis.
void Link::close() noexcept {
  ended_ = true;
  connected_ = false;
  if (inside_) {
    return;
  }
  loop_.close();
  if (redisAsyncContext* redis = redis_; redis != nullptr) {
    redis_ = nullptr;
    redisAsyncFree(redis);
  }
}

}  // namespace penstock::redis
