#include "shared/redis/subscription.h"

#include <hiredis/hiredis.h>

#include <array>
#include <utility>

#include "shared/base/clock.h"
#include "shared/redis/answer.h"

namespace penstock::redis {

Subscription::Subscription(const Servers& servers, std::string key, std::unique_ptr<Loop> loop)
    : servers_(servers), key_(std::move(key)), loop_(std::move(loop)) {}

Subscription::~Subscription() {
  close();
  loop_->clear_timer();
}

void Subscription::start() noexcept { on_time(); }

void Subscription::listen(const std::string& channel, Listener& listener) {
  listeners_[channel] = &listener;
  if (redis_ != nullptr) {
    send({"SUBSCRIBE", channel});
  }
}

void Subscription::leave(const std::string& channel) {
  if (listeners_.erase(channel) > 0 && redis_ != nullptr) {
    send({"UNSUBSCRIBE", channel});
  }
}

// ---- its life

void Subscription::on_time() noexcept {
  loop_->set_timer(*this, kTickMs);
  const Address* const to = servers_.server_of(key_);
  if (redis_ == nullptr && !looking_up_) {
    return to != nullptr ? open(*to) : void();
  }
  if (to != nullptr && !(*to == at_)) {
    return lose("another server has the keys now");
  }
  const int64_t now_ns = monotonic_ns();
  if (now_ns - heard_ns_ > kDeadMs * kNsPerMs) {
    return lose("it does not answer who listens");
  }
  if (up_ && now_ns - heard_ns_ > kQuietMs * kNsPerMs && asked_ns_ <= heard_ns_) {
    asked_ns_ = now_ns;
    send({"PING"});
  }
}

void Subscription::open(const Address& to) noexcept {
  at_ = to;
  heard_ns_ = asked_ns_ = monotonic_ns();
  if (!to.path.empty() || is_number(to.host)) {
    connect(to.host.c_str());
  } else {
    looking_up_ = true;
    if (!loop_->find(to.host, *this)) {
      lose("its name cannot be looked up");
    }
  }
}

void Subscription::on_found(std::string_view ip) noexcept {
  looking_up_ = false;
  ip.empty() ? lose("no address is found for its name") : connect(std::string(ip).c_str());
}

void Subscription::connect(const char* host) noexcept {
  redis_ = at_.path.empty() ? redisConnectNonBlock(host, at_.port)
                            : redisConnectUnixNonBlock(at_.path.c_str());
  if (redis_ == nullptr || redis_->err != 0) {
    return lose(redis_ == nullptr ? "no memory" : redis_->errstr);
  }
  if (!loop_->open(redis_->fd, *this)) {
    return lose("no connections are left in this process");
  }
  const Settings& settings = servers_.settings();
  if (!settings.password.empty()) {
    settings.user.empty() ? send({"AUTH", settings.password})
                          : send({"AUTH", settings.user, settings.password});
  }
  // A channel where nothing is said: so it listens, whoever else comes and goes.
  send({"SUBSCRIBE", std::string(servers_.prefix()) + "listen"});
  for (const auto& [channel, listener] : listeners_) {
    send({"SUBSCRIBE", channel});
  }
}

void Subscription::lose(std::string_view why) noexcept {
  why_ = "Redis at " + text_of(at_) + ": " + std::string(why);
  close();
}

void Subscription::close() noexcept {
  looking_up_ = up_ = writing_ = false;
  loop_->close();
  redisFree(std::exchange(redis_, nullptr));
}

// ---- what is said

void Subscription::want() noexcept { loop_->want(true, writing_); }

// It goes out with all that is said in this turn of the loop.
void Subscription::send(std::initializer_list<std::string_view> words) noexcept {
  std::array<const char*, 3> texts;
  std::array<size_t, 3> sizes;
  size_t count = 0;
  for (const std::string_view word : words) {
    texts[count] = word.data();
    sizes[count++] = word.size();
  }
  redisAppendCommandArgv(redis_, static_cast<int>(count), texts.data(), sizes.data());
  writing_ = true;
  want();
}

void Subscription::on_writable() noexcept {
  int done = 0;
  if (redisBufferWrite(redis_, &done) != REDIS_OK) {
    return lose(redis_->errstr);
  }
  writing_ = done == 0;
  want();
}

void Subscription::on_readable() noexcept {
  if (redisBufferRead(redis_) != REDIS_OK) {
    return lose(redis_->errstr);
  }
  heard_ns_ = monotonic_ns();
  void* reply = nullptr;
  while (redis_ != nullptr) {
    if (redisGetReplyFromReader(redis_, &reply) != REDIS_OK) {
      return lose(redis_->errstr);
    }
    if (reply == nullptr) {
      return;
    }
    on_reply(*static_cast<redisReply*>(reply));
    freeReplyObject(reply);
  }
}

void Subscription::on_reply(const redisReply& reply) {
  if (is_error(reply)) {
    return lose(text_of(reply));
  }
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 3 || !is_text(*reply.element[0]) ||
      !is_text(*reply.element[1])) {
    return;  // OK, PONG
  }
  const std::string_view what = text_of(*reply.element[0]);
  const std::string_view channel = text_of(*reply.element[1]);
  up_ = up_ || what == "subscribe";
  const auto to = listeners_.find(channel);
  if (to == listeners_.end()) {
    return;
  }
  if (what == "subscribe") {
    to->second->on_listening(channel);
  } else if (what == "message" && is_text(*reply.element[2])) {
    to->second->on_message(channel, text_of(*reply.element[2]));
  }
}

}  // namespace penstock::redis
