// Servers: the Redis that hosts share, whichever way it is set up. Each key is where its slot is:
//
//   one Redis   has all slots
//   Sentinel    the master that a Sentinel names has them
//   a cluster   each of its masters has some
//
// To each server that has slots there is one connection. Where a guide says that slots have moved,
// connections follow; what a server no longer has (MOVED, ASK) is asked once more where it says.
//
// Where scripts read several keys (Settings::Follows), a slot that is being moved is held: it is
// not ready until it has moved, or does not move any more. Each such script names a key that is not
// there, so Redis answers it with ASK as soon as the slot begins to move, before anything is done.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "shared/redis/guide.h"

namespace penstock::redis {

// One Redis: one address. Of Sentinels: a master, and their addresses. A cluster: several of its
// nodes.
struct Whereabouts {
  std::vector<Address> addresses;
  std::string master;
};

class Servers final : Guide::User {
 public:
  class User {
   public:
    // All keys' servers can be asked; `who` names one of them.
    virtual void on_ready(std::string_view who) noexcept = 0;
    // Some cannot be, or all; `why` is a sentence's beginning.
    virtual void on_lost(std::string_view why) noexcept = 0;
    // How many hosts share, each second.
    virtual void on_hosts(uint64_t hosts) noexcept = 0;

   protected:
    ~User() = default;
  };
  using MakeLoop = std::function<std::unique_ptr<Loop>()>;

  // The user lives longer.
  Servers(Settings settings, Whereabouts where, MakeLoop make_loop, User& user);
  ~Servers();
  Servers(const Servers&) = delete;
  Servers& operator=(const Servers&) = delete;

  void start() noexcept;
  // This host leaves: what was called before is sent, its answers are not waited for.
  void leave() noexcept;

  // What each key's name begins with: prefix and layout.
  std::string_view prefix() const noexcept { return prefix_; }
  const Settings& settings() const noexcept { return settings_; }

  enum class Reach : uint8_t { kNone, kSome, kAll };
  // How many of the keys can be asked for, without a long wait.
  Reach reach(int64_t now_ns) const noexcept;
  bool reaches(std::string_view key, int64_t now_ns) const noexcept;
  // Whether calls for the key are taken, and done. Of a slot that is held they are taken all the
  // same: their answers tell when it has moved.
  bool ready(std::string_view key) const noexcept;
  // The server that they go to; nullptr: none are taken.
  const Address* server_of(std::string_view key) const noexcept;

  // As Connection's. False: it was not sent, and is not answered.
  bool call(Script script, std::string_view key, std::span<const std::string_view> arguments,
            Connection::Answered answered, void* context) noexcept;
  bool wait(std::string_view key, uint32_t replicas, int64_t ms, Connection::Answered answered,
            void* context) noexcept;
  bool ask(std::string_view key, std::span<const std::string_view> words,
           Connection::Answered answered, void* context) noexcept;

 private:
  struct Server;

  void on_places(Places places) noexcept override;
  void on_no_places(std::string_view why) noexcept override;

  bool is_cluster() const noexcept { return where_.master.empty() && where_.addresses.size() > 1; }
  Server* of(std::string_view key) const noexcept;
  Server& of_address(const Address& address) noexcept;
  std::string own_key_of(const Server& server) const;
  bool has_all() const noexcept;
  bool is_rumour(const Places& places) noexcept;
  void hold(const Moved& moved, const Address& from) noexcept;
  void look_at_held() noexcept;
  void tell_hosts() noexcept;
  Connection* moved(Connection& connection, std::string_view error) noexcept;

  const Settings settings_;
  const Whereabouts where_;
  const std::string prefix_;
  const MakeLoop make_loop_;
  User& user_;
  std::unique_ptr<Loop> guide_loop_;
  std::unique_ptr<Guide> guide_;  // nullptr: there is one Redis
  std::vector<std::unique_ptr<Server>> servers_;
  std::vector<Server*> slots_;  // nullptr: nobody has it
  bool covered_ = false;        // each slot is somebody's
  Address rumour_;              // of another master
  struct Held {
    Address from;
    int64_t until_ns = 0;  // if nothing more is heard of it
  };
  std::map<unsigned, Held> held_;  // slots that are being moved
};

}  // namespace penstock::redis
