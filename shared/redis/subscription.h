// Subscription: what is published on channels, heard over one connection that stays up.
//
//   closed ──the server is known──▶ open ──error, silence, the server is another──▶ closed
//
// It is a connection of its own, for one that listens takes no other commands. It goes where the
// Servers' own connection for a key is, so a master that has changed is followed. Messages are
// hints: what is published while it is closed is never heard. Each channel is told when it is heard
// again, so that its listener may look for what it has missed.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "shared/redis/servers.h"

struct redisContext;

namespace penstock::redis {

class Subscription final : Events {
 public:
  class Listener {
   public:
    // From here on messages are heard; told once more each time that the connection is a new one.
    virtual void on_listening(std::string_view channel) = 0;
    // Good until it returns.
    virtual void on_message(std::string_view channel, std::string_view text) = 0;

   protected:
    ~Listener() = default;
  };

  // It listens where `key` is. `servers` lives longer.
  Subscription(const Servers& servers, std::string key, std::unique_ptr<Loop> loop);
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  void start() noexcept;

  // A channel has one listener, which lives until it is left. Both may be called at any time, also
  // by a listener that is told something.
  void listen(const std::string& channel, Listener& listener);
  void leave(const std::string& channel);

  // Whether the server has confirmed that it is listened to.
  bool up() const noexcept { return up_; }
  // Why it was lost the last time: "Redis at 10.0.0.5:6379: Connection refused".
  const std::string& why() const noexcept { return why_; }

 private:
  static constexpr int64_t kTickMs = 100;
  static constexpr int64_t kQuietMs = 500;  // then it is asked whether it is there
  static constexpr int64_t kDeadMs = 1500;

  void on_readable() noexcept override;
  void on_writable() noexcept override;
  void on_time() noexcept override;
  void on_found(std::string_view ip) noexcept override;

  void open(const Address& to) noexcept;
  void connect(const char* host) noexcept;
  void lose(std::string_view why) noexcept;
  void close() noexcept;
  void send(std::initializer_list<std::string_view> words) noexcept;
  void want() noexcept;
  void on_reply(const struct redisReply& reply);

  const Servers& servers_;
  const std::string key_;
  std::unique_ptr<Loop> loop_;
  std::map<std::string, Listener*, std::less<>> listeners_;  // by channel
  Address at_;
  redisContext* redis_ = nullptr;
  bool looking_up_ = false;
  bool up_ = false;
  bool writing_ = false;
  int64_t heard_ns_ = 0;
  int64_t asked_ns_ = 0;
  std::string why_;
};

}  // namespace penstock::redis
