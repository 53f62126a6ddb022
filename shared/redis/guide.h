// Guide: asks the servers it was given where keys are, again and again: Sentinels for their master,
// or the nodes of a cluster for its slots.
//
// One is asked at a time, for as long as it answers and nobody doubts it; then the next, and after
// all of them a pause, doubled each time, drawn at random. Whether a server has the keys, and takes
// writes, is found out by the connection to it.
#pragma once

#include <string>
#include <vector>

#include "shared/redis/connection.h"
#include "shared/redis/places.h"

namespace penstock::redis {

class Guide final : Link::User {
 public:
  class User {
   public:
    virtual void on_places(Places places) noexcept = 0;
    // None tells; `why` is a sentence's beginning: "Sentinel at 10.0.0.5:26379, …: no answer".
    virtual void on_no_places(std::string_view why) noexcept = 0;

   protected:
    ~User() = default;
  };

  // `master`: the name that Sentinels know it by; empty: these are the nodes of a cluster. All but
  // `servers` live longer. REQUIRES: !servers.empty().
  Guide(const Settings& settings, std::string master, std::vector<Address> servers, Loop& loop,
        User& user);

  void start() noexcept { on_time(); }
  void stop() noexcept;
  // What was said may not be so: asks soon, and another.
  void doubt() noexcept;

 private:
  static constexpr int64_t kSilentMs = 500;
  static constexpr int64_t kFirstPauseMs = 50;
  static constexpr int64_t kLongestPauseMs = 1000;

  void on_open() noexcept override;
  void on_reply(void* what, const redisReply* reply) noexcept override;
  void on_end(std::string_view why) noexcept override { give_up(why); }
  void on_time() noexcept override;

  bool asks_sentinels() const noexcept { return !master_.empty(); }
  const Address& at() const noexcept;
  void ask() noexcept;
  void ask_in(int64_t ms) noexcept;
  void leave() noexcept;
  void give_up(std::string_view why) noexcept;
  int64_t jittered(int64_t ms) noexcept;

  const Settings& settings_;
  const std::string master_;
  const std::vector<Address> given_;
  std::vector<Address> told_;  // of a cluster: nodes by its own word
  User& user_;
  Link link_;
  size_t turn_ = 0;
  size_t misses_ = 0;  // in a row
  bool open_ = false, asking_ = false, doubted_ = false;
  int64_t asked_ns_ = 0;
  int64_t pause_ms_ = kFirstPauseMs;
  uint64_t random_;
};

}  // namespace penstock::redis
