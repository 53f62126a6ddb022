// Link: one connection to a server that speaks RESP, from its opening to its end.
//
// hiredis (0.14) does the protocol. It has no timers, and its connect may look up names and wait:
// both are the loop's here. What is sent is answered in order; what is pending as a link ends is
// answered with nullptr: nobody knows whether it was done.
#pragma once

#include <hiredis/async.h>

#include <span>
#include <string_view>

#include "shared/redis/address.h"
#include "shared/redis/loop.h"

namespace penstock::redis {

class Link final : Events {
 public:
  class User {
   public:
    // What is sent from here on is taken; it goes out once the server is reached.
    virtual void on_open() noexcept = 0;
    // Good until it returns.
    virtual void on_reply(void* what, const redisReply* reply) noexcept = 0;
    // It has ended without being closed.
    virtual void on_end(std::string_view why) noexcept = 0;
    virtual void on_time() noexcept = 0;

   protected:
    ~User() = default;
  };

  // Loop and user live longer.
  Link(Loop& loop, User& user) noexcept : loop_(loop), user_(user) {}
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // May end at once. REQUIRES: it is closed.
  void open(const Address& to) noexcept;
  // May be called at any time, also by what it has called.
  void close() noexcept;
  bool is_connected() const noexcept { return connected_; }

  // Words as a command; or one that is formatted already. False: it was not sent, and is not
  // answered.
  bool send(std::span<const std::string_view> words, void* what) noexcept;
  bool send(std::string_view bytes, void* what) noexcept;
  // Since it was opened: bytes that were sent; of these, those that the other side has taken; and
  // how often some have come.
  uint64_t sent() const noexcept { return sent_; }
  uint64_t taken() const noexcept;
  uint64_t received() const noexcept { return received_; }
  // What was sent goes out now, as far as it can.
  void flush() noexcept;

  void set_timer(int64_t after_ms) noexcept { loop_.set_timer(*this, after_ms); }
  void clear_timer() noexcept { loop_.clear_timer(); }

 private:
  void on_readable() noexcept override;
  void on_writable() noexcept override;
  void on_time() noexcept override { user_.on_time(); }
  void on_found(std::string_view ip) noexcept override;
  static void on_reply(redisAsyncContext* redis, void* reply, void* what) noexcept;

  void connect(const char* host) noexcept;
  void attach() noexcept;
  void want() noexcept { loop_.want(reading_, writing_); }
  void end(std::string_view why) noexcept;

  Loop& loop_;
  User& user_;
  Address to_;
  redisAsyncContext* redis_ = nullptr;
  bool inside_ = false;  // hiredis is at work: it must not be freed now
  bool ended_ = true;    // to be freed as soon as it isn't
  size_t pending_ = 0;   // answers that are to come
  uint64_t sent_ = 0, received_ = 0;
  bool connected_ = false;
  bool reading_ = false, writing_ = false;
};

}  // namespace penstock::redis
