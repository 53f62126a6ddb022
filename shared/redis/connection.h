// Connection: one connection to a redis-server, kept up, over which scripts are called.
//
//   closed ──timer──▶ connecting ──▶ greeting ──all answered──▶ ready ──error, silence──▶ closed
//
// Greeting: password, database, what the server does when its memory is full, our scripts, and a
// first call that writes. So what is ready is a Redis that keeps what it is told, and takes writes.
// Only maxmemory-policy noeviction is accepted: what is evicted would be admitted again.
//
// Calls are answered in their order; whatever is called within one turn of the loop goes out
// together. A script that the server has lost is loaded again, and its calls repeated. An answer
// that does not come is found out in two steps: after `patience_ms` the connection is stalled, and
// its user does without it; after kDeadMs it is closed. It is opened again after a pause, doubled
// each time, drawn at random so that hosts do not come at once.
//
// hiredis (0.14) does the protocol. It has no timers: all of them are here. A call that is pending
// as its connection ends is answered with nullptr: nobody knows whether it ran.
#pragma once

#include <hiredis/async.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "shared/redis/loop.h"
#include "shared/redis/scripts.h"

namespace penstock::redis {

struct Address {
  std::string path;  // of a Unix socket; empty: TCP
  std::string ip;    // a number: no name is looked up here
  int port = 0;
};

struct Settings {
  Address address;
  int database = 0;
  std::string user, password;  // empty: none
  std::string prefix;          // of all keys
  std::string host;            // who calls: unlike any other, and any that was before
  int64_t patience_ms = 5;
};

class Connection final : Events {
 public:
  // The answer to a call, good until it returns; nullptr: there is none, and the call may have run.
  // What says that the server cannot be used is no answer, but the end of the connection.
  using Answered = void (*)(void* context, const redisReply* answer) noexcept;

  class User {
   public:
    virtual void on_ready() noexcept = 0;
    // It cannot be used; `why` is a sentence's beginning: "10.0.0.5:6379: Connection refused".
    virtual void on_lost(std::string_view why) noexcept = 0;
    // How many hosts share, each second.
    virtual void on_hosts(uint64_t hosts) noexcept = 0;

   protected:
    ~User() = default;
  };

  // Loop and user live longer.
  Connection(Settings settings, Loop& loop, User& user);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start() noexcept;
  // This host leaves: what was called before is sent, its answers are not waited for.
  void leave() noexcept;

  bool ready() const noexcept { return state_ == State::kReady; }
  // Whether a call has been without an answer for too long.
  bool stalled(int64_t now_ns) const noexcept;

  // The key's name: prefix, layout, kind, and what it is.
  std::string_view prefix() const noexcept { return prefix_; }

  // Runs a script on one key. False: it was not sent, and is not answered. REQUIRES: ready().
  bool call(Script script, std::string_view key, std::span<const std::string_view> arguments,
            Answered answered, void* context) noexcept;
  bool remove(std::string_view key) noexcept;

  // Calls that were made, and answered with NOSCRIPT.
  uint64_t calls() const noexcept { return calls_; }
  uint64_t reloads() const noexcept { return reloads_; }

 private:
  enum class State : uint8_t { kClosed, kConnecting, kGreeting, kReady };
  static constexpr int64_t kTickMs = 50;
  static constexpr int64_t kDeadMs = 1000;
  static constexpr int64_t kFirstPauseMs = 50;
  static constexpr int64_t kLongestPauseMs = 2000;
  static constexpr int64_t kHostsEveryMs = 1000;
  static constexpr int64_t kHostStaysMs = 5000;

  struct Call;

  void on_readable() noexcept override;
  void on_writable() noexcept override;
  void on_time() noexcept override;

  void open() noexcept;
  void attach() noexcept;
  void greet() noexcept;
  void on_greeted(const Call& call, const redisReply& answer) noexcept;
  void be_ready() noexcept;
  // Ends the connection: at once, or when hiredis lets go of it.
  void lose(std::string_view why) noexcept;
  void close() noexcept;
  void pause() noexcept;
  void call_hosts() noexcept;
  void want() noexcept;

  Call* make(Answered answered, void* context, Script script) noexcept;
  bool send(Call* call, std::span<const std::string_view> words) noexcept;
  bool send_again(Call* call) noexcept;
  void load(Script script) noexcept;
  void on_answer(Call* call, const redisReply* answer) noexcept;
  bool lost_script(Call* call, const redisReply& answer) noexcept;

  static void on_reply(redisAsyncContext* redis, void* answer, void* call) noexcept;

  const Settings settings_;
  std::string prefix_;
  std::string name_;  // of the address, for messages
  Loop& loop_;
  User& user_;
  State state_ = State::kClosed;
  redisAsyncContext* redis_ = nullptr;
  bool inside_ = false;  // hiredis is at work: it must not be freed now
  bool failed_ = false;  // to be closed as soon as it isn't
  bool reading_ = false, writing_ = false;
  Call* first_ = nullptr;  // unanswered, oldest first
  Call* last_ = nullptr;
  int64_t opened_ns_ = 0;
  int64_t hosts_called_ns_ = 0;
  int64_t pause_ms_ = kFirstPauseMs;
  uint64_t random_;
  char shas_[kScripts][40] = {};
  bool loading_[kScripts] = {};
  uint64_t calls_ = 0, reloads_ = 0;
};

}  // namespace penstock::redis
