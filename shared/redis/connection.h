// Connection: to one redis-server, kept up, over which scripts are called.
//
//   closed ──timer──▶ greeting ──all answered──▶ ready ──error, silence──▶ closed
//
// Greeting: password, database, the server's role, our scripts, what it does when its memory is
// full, and a first call that writes (see set_own_key). So what is ready is a master that keeps
// what it is told, and takes writes. Only maxmemory-policy noeviction is accepted: what is evicted
// would be admitted again.
//
// Calls are answered in their order; whatever is called within one turn of the loop goes out
// together. A script that the server has lost is loaded again, and its calls repeated. An answer
// that does not come is found out in two steps: after `patience_ms` the connection is stalled, and
// its user does without it; after kDeadMs in which not a byte of the call went out, and none came
// in, it is closed. It is opened again after a pause, doubled each time, drawn at random so that
// hosts do not come at once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/redis/link.h"
#include "shared/redis/scripts.h"

namespace penstock::redis {

struct Settings {
  int database = 0;
  std::string user, password;  // empty: none
  std::string prefix;          // of all keys
  std::string layout = kLayout;
  std::span<const std::string_view> scripts = limit_scripts();  // they live longer
  std::string host;  // who calls: unlike any other, and any that was before
  // As whom it is counted among those that share; empty: as `host`.
  std::string counts_as;
  int64_t patience_ms = 5;
  // How many hosts share is found out each second, by a call that writes; a server whose memory is
  // full cannot be used then. Else that is an answer like others.
  bool counts_hosts = true;
  // Which calls go on to where their key is now. Of others nothing is done, and they are not
  // answered; the next ones go there.
  enum class Follows : uint8_t {
    kAll,
    // Those whose slot has moved. While it is being moved, its keys are here and there, and a
    // script that reads several would miss some: then none is called (Servers).
    kMoved,
    kNone,  // what is answered was done by the server that was asked
  };
  Follows follows = Follows::kAll;
};

class Connection final : Link::User {
 public:
  // The answer to a call, good until it returns; nullptr: there is none, and the call may have run.
  // What says that the server cannot be used is no answer, but the end of the connection.
  using Answered = void (*)(void* context, const redisReply* answer) noexcept;

  class User {
   public:
    virtual void on_ready(Connection& connection) noexcept = 0;
    // It cannot be used; `why` is a sentence's beginning: "Redis at 10.0.0.5:6379: Connection
    // refused".
    virtual void on_lost(Connection& connection, std::string_view why) noexcept = 0;
    // How many hosts share, each second.
    virtual void on_hosts(Connection& connection, uint64_t hosts) noexcept = 0;
    // A call's key is on another server, by this error ("MOVED …", "ASK …"). Where the call goes
    // instead; nullptr: nowhere, and it is answered with the error (see Settings::Follows).
    virtual Connection* on_moved(Connection& connection, std::string_view error) noexcept = 0;

   protected:
    ~User() = default;
  };

  // All but `at` live longer.
  Connection(const Settings& settings, Address at, Loop& loop, User& user);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start() noexcept;
  // This host leaves: what was called before is sent, its answers are not waited for.
  void leave() noexcept;

  const Address& address() const noexcept { return at_; }
  bool ready() const noexcept { return state_ == State::kReady; }
  // Whether a call has been without an answer for too long.
  bool stalled(int64_t now_ns) const noexcept;
  // No call is without an answer.
  bool idle() const noexcept { return first_ == nullptr; }

  static constexpr size_t kMostArguments = 700;

  // A key in a slot that the server has, for the first call that writes: hosts are told of there,
  // or, where they are not counted, it is deleted, though it is never there. Empty: neither.
  void set_own_key(std::string key) noexcept { own_key_ = std::move(key); }

  // Runs a script on one key. False: it was not sent, and is not answered; so it is with more than
  // kMostArguments. REQUIRES: ready().
  bool call(Script script, std::string_view key, std::span<const std::string_view> arguments,
            Answered answered, void* context) noexcept;
  // Asks how many replicas have what was called before, within `ms`, as soon as `replicas` have it.
  // Until it is answered, the server does nothing that comes behind it here.
  bool wait(uint32_t replicas, int64_t ms, Answered answered, void* context) noexcept;
  // Any command, at most kMostArguments words. Its answer says nothing of the connection.
  bool ask(std::span<const std::string_view> words, Answered answered, void* context) noexcept;

 private:
  enum class State : uint8_t { kClosed, kGreeting, kReady };
  static constexpr int64_t kTickMs = 50;
  static constexpr int64_t kDeadMs = 1000;
  static constexpr int64_t kFirstPauseMs = 50;
  static constexpr int64_t kLongestPauseMs = 2000;
  static constexpr int64_t kHostsEveryMs = 1000;
  static constexpr int64_t kHostStaysMs = 5000;

  struct Call;
  struct Loaded {
    char sha[40] = {};
    bool loading = false;
  };

  void on_open() noexcept override { greet(); }
  void on_reply(void* call, const redisReply* answer) noexcept override;
  void on_end(std::string_view why) noexcept override { lose(why); }
  void on_time() noexcept override;

  void open() noexcept;
  void greet() noexcept;
  void on_greeted(const Call& call, const redisReply& answer) noexcept;
  void check_policy(std::string_view policy) noexcept;
  void be_ready() noexcept;
  void lose(std::string_view why) noexcept;
  void pause() noexcept;
  bool is_silent(int64_t now_ns) noexcept;
  void call_hosts() noexcept;
  void call_first() noexcept;
  bool tells_hosts() const noexcept { return settings_.counts_hosts && !own_key_.empty(); }

  Call* make(Answered answered, void* context, Script script) noexcept;
  bool send(Call* call, std::span<const std::string_view> words) noexcept;
  bool send_again(Call* call) noexcept;
  void load(Script script) noexcept;
  bool repeat(Call* call, const redisReply& answer) noexcept;
  bool take(Call* call, bool asking) noexcept;
  std::string_view counted_as() const noexcept {
    return settings_.counts_as.empty() ? settings_.host : settings_.counts_as;
  }
  std::string_view sha_of(Script script) const noexcept {
    return {scripts_[static_cast<size_t>(script)].sha, sizeof(Loaded::sha)};
  }

  const Settings& settings_;
  const Address at_;
  User& user_;
  Link link_;
  State state_ = State::kClosed;
  std::string own_key_;
  Call* first_ = nullptr;  // unanswered, oldest first
  Call* last_ = nullptr;
  int64_t opened_ns_ = 0;
  int64_t moved_ns_ = 0;               // when bytes were last seen to go out or to come
  uint64_t taken_ = 0, received_ = 0;  // the link's, then
  bool was_silent_ = false;            // as time was last looked at
  int64_t hosts_called_ns_ = 0;
  int64_t pause_ms_ = kFirstPauseMs;
  std::vector<Loaded> scripts_;
  uint64_t random_;
};

}  // namespace penstock::redis
