// NameLookup: hosts' addresses by their names, without waiting: a thread of its own asks the
// system, and the loop is told.
//
// What one asks for that it has asked for a moment ago has failed it: it is given the next address,
// of whichever family.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "shared/base/event_loop.h"

namespace penstock::queue {

class NameLookup final : EventLoop::Handler {
 public:
  static constexpr int64_t kFailedNs = 10'000'000'000;

  // Its number; empty: it has none.
  using Found = std::function<void(std::string_view ip)>;

  // The loop lives longer. `on_event` is called before anybody is told.
  NameLookup(EventLoop& events, std::function<void()> on_event);
  ~NameLookup() override;
  NameLookup(const NameLookup&) = delete;
  NameLookup& operator=(const NameLookup&) = delete;

  // Of whoever asks for several at once the last one counts. False: no thread can be had.
  bool find(const void* who, std::string name, Found found);
  void forget(const void* who) { asked_.erase(who); }
  void leave(const void* who);

 private:
  struct Shared;  // with the thread, which may be the last to hold it
  struct Asked {
    uint64_t number;
    Found found;
  };
  struct Last {
    std::string name;
    int64_t at_ns = 0;
    size_t turn = 0;
  };

  void on_events(uint32_t events) override;

  EventLoop& events_;
  const std::function<void()> on_event_;
  std::shared_ptr<Shared> shared_;  // nullptr: nothing was asked for yet
  uint64_t numbers_ = 0;
  std::map<const void*, Asked> asked_;
  std::map<const void*, Last> last_;
};

}  // namespace penstock::queue
