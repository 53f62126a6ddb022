// AdmitThread: calls an engine's admit() beside its steps, so that reading one caller's long prompt
// holds up nobody's answer.
//
// Requests are read one after the other, as they came, and come out in that order. How many there
// are is bounded by who adds them. One thread uses this.
#pragma once

#include <cstdint>
#include <exception>
#include <list>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "shared/base/fd.h"
#include "shared/base/mutex.h"
#include "worker/pool/engine.h"

namespace penstock {

class AdmitThread {
 public:
  // SUBMIT's number, or CHECK's: these have numbers of their own.
  struct Id {
    uint64_t number = 0;
    bool is_check = false;
    bool operator==(const Id&) const = default;
  };
  using Verdict = std::variant<std::unique_ptr<Plan>, Failure>;
  struct Admitted {
    Id id;
    Verdict verdict;
  };

  // REQUIRES: engine.admits_beside_steps(); it outlives this. Throws std::system_error: there is no
  // descriptor, or no thread.
  explicit AdmitThread(Engine& engine);
  // Waits for the request that is being read.
  ~AdmitThread();
  AdmitThread(const AdmitThread&) = delete;
  AdmitThread& operator=(const AdmitThread&) = delete;

  // REQUIRES: `request.storage` holds all that it views; !has(id).
  void add(Id id, Request request);
  // Nothing comes of it any more. False: it is not here.
  bool drop(Id id);
  bool has(Id id);
  // Whether there is nothing at all here: then others may call admit().
  bool idle();
  // How many there are that were not dropped.
  size_t jobs() const { return count(false); }
  size_t checks() const { return count(true); }

  // Since when the one that is being read is; 0: there is none.
  int64_t reading_since_ns() const;

  // What was read since the last call. Throws what admit() threw.
  std::vector<Admitted> take();
  // Polls readable when there is some.
  int fd() const { return done_.get(); }

 private:
  struct Item {
    Id id;
    Request request;
    bool dropped = false;
    std::optional<Verdict> verdict;
    std::exception_ptr fault;
    bool is_read() const { return verdict || fault != nullptr; }
  };
  void run();
  Item* next() REQUIRES(mutex_);
  std::list<Item>::iterator find(Id id) REQUIRES(mutex_);
  size_t count(bool checks) const;

  Engine& engine_;
  Fd done_;  // an eventfd
  mutable Mutex mutex_;
  CondVar added_;
  std::list<Item> items_ GUARDED_BY(mutex_);          // as they came
  const Item* current_ GUARDED_BY(mutex_) = nullptr;  // is being read
  int64_t begun_ns_ GUARDED_BY(mutex_) = 0;           // when that began
  bool over_ GUARDED_BY(mutex_) = false;

  std::thread thread_;  // the last: it uses all of these
};

}  // namespace penstock
