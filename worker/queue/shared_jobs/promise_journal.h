// PromiseJournal: what this host has promised of a queue's jobs, on its own disk, until their end
// is known. What Redis has lost, as it failed over to a server that had not heard of it, is
// announced again: added under the same id, and not refused by any bound.
//
//     note() ──▶ coming ──promised()──▶ promised ──over(), or Redis says so──▶ gone
//                  │                       │  ▲
//                  └─forget()──▶ gone      └──┘ Redis does not know it: announced
//
// Redis is asked for some of them each second, and for all once it is another, or was away. A job
// that Redis does not know may also have ended, and have been forgotten since: one that has not
// been seen for as long as ends are kept is given up, and so is one whose deadline has passed.
// Whose key another job has by now is not announced: that one stands for it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/shared_jobs/newcomer.h"
#include "worker/queue/store/store.h"

namespace penstock::queue {

class PromiseJournal {
 public:
  static constexpr std::string_view kSecretOf = "secret ";  // before a queue's name
  static constexpr int64_t kEveryNs = kNsPerSec;
  static constexpr size_t kMostAsked = 500;     // in one request
  static constexpr size_t kRoundSeconds = 20;   // in which each is asked for
  static constexpr size_t kMostAnnounced = 64;  // at once

  // Both live longer. Ends are kept for `keep_ms`.
  PromiseJournal(std::string queue, SharedOrder& order, Store& store, int64_t keep_ms);
  ~PromiseJournal() { *alive_ = false; }
  PromiseJournal(const PromiseJournal&) = delete;
  PromiseJournal& operator=(const PromiseJournal&) = delete;

  // What ends from now on is kept so long. What was noted before may have ended before.
  void set(int64_t keep_ms);

  // Told once it is written; false: it could not be.
  void note(const Newcomer& newcomer, std::function<void(bool)> written);
  void promised(const std::string& id);
  void forget(const std::string& id);
  bool contains(const std::string& id) const { return entries_.contains(id); }
  // From an earlier life.
  void restore(const Newcomer& newcomer, int64_t now_ms);

  // Under which this host's promises are hashed; empty: it is not known.
  const std::string& secret() const { return secret_; }
  void keep_secret(const std::string& secret);
  void restore_secret(std::string secret) { secret_ = std::move(secret); }

  // Redis may be another, or have lost something.
  void doubt();
  void advance_to(int64_t now_ns);
  size_t size() const { return entries_.size(); }
  uint64_t announced() const { return announced_; }

 private:
  struct Entry {
    bool promised = false;
    bool announcing = false;
    int64_t seen_ns = 0;      // in Redis
    int64_t keep_ns = 0;      // had it ended since, so long at least it would be known
    int64_t deadline_us = 0;  // by the time of day; 0: none
  };

  void ask_some();
  void told(const std::vector<std::string>& ids, const std::vector<int64_t>& states);
  void announce_some();
  void announce(const std::string& id, const std::optional<std::string>& text);
  void announced(const std::string& id, const SharedOrder::Answer<SharedOrder::Added>& answer);

  const std::string queue_;
  SharedOrder& order_;
  Store& store_;
  int64_t keep_ns_;
  std::unordered_map<std::string, Entry> entries_;
  std::deque<std::string> round_;  // those that are to be asked for
  std::deque<std::string> lost_;   // those that are to be announced
  std::string secret_;
  size_t announcing_ = 0;
  bool asking_ = false;
  bool hurries_ = false;
  int64_t next_ns_ = 0;
  uint64_t announced_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace penstock::queue
