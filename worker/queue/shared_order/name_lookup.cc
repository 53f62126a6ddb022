#include "worker/queue/shared_order/name_lookup.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/fd.h"
#include "shared/base/mutex.h"

namespace penstock::queue {
namespace {

struct Question {
  uint64_t number;
  std::string name;
  size_t turn;
};
struct Told {
  uint64_t number;
  std::string ip;
};

std::string address_of(const std::string& name, size_t turn) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* all = nullptr;
  if (::getaddrinfo(name.c_str(), nullptr, &hints, &all) != 0) {
    return {};
  }
  std::vector<std::string> found;
  for (const addrinfo* each = all; each != nullptr; each = each->ai_next) {
    char text[NI_MAXHOST];
    if (::getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, nullptr, 0,
                      NI_NUMERICHOST) == 0) {
      found.emplace_back(text);
    }
  }
  ::freeaddrinfo(all);
  return found.empty() ? std::string() : found[turn % found.size()];
}

}  // namespace

struct NameLookup::Shared {
  Fd event{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  Mutex mutex;
  CondVar wake;
  std::deque<Question> questions GUARDED_BY(mutex);
  std::vector<Told> told GUARDED_BY(mutex);
  bool over GUARDED_BY(mutex) = false;

  void work() {
    while (true) {
      Question question;
      {
        MutexLock lock(mutex);
        while (questions.empty() && !over) {
          wake.wait(mutex);
        }
        if (over) {
          return;
        }
        question = std::move(questions.front());
        questions.pop_front();
      }
      std::string ip = address_of(question.name, question.turn);
      const MutexLock lock(mutex);
      told.push_back({question.number, std::move(ip)});
      ::eventfd_write(event.get(), 1);
    }
  }
};

NameLookup::NameLookup(EventLoop& events, std::function<void()> on_event)
    : events_(events), on_event_(std::move(on_event)) {}

// A look-up that is under way is not waited for.
NameLookup::~NameLookup() {
  if (shared_ != nullptr) {
    events_.remove(shared_->event.get(), this);
    const MutexLock lock(shared_->mutex);
    shared_->over = true;
    shared_->wake.notify_one();
  }
}

bool NameLookup::find(const void* who, std::string name, Found found) {
  if (shared_ == nullptr) {
    auto shared = std::make_shared<Shared>();
    if (!shared->event.valid() || !events_.add(shared->event.get(), EPOLLIN, this)) {
      return false;
    }
    try {
      std::thread([shared] { shared->work(); }).detach();
    } catch (const std::system_error&) {
      events_.remove(shared->event.get(), this);
      return false;
    }
    shared_ = std::move(shared);
  }
  Last& last = last_[who];
  const int64_t now_ns = monotonic_ns();
  last.turn = last.name == name && now_ns - last.at_ns < kFailedNs ? last.turn + 1 : 0;
  last.name = name;
  last.at_ns = now_ns;
  asked_[who] = {++numbers_, std::move(found)};
  const MutexLock lock(shared_->mutex);
  shared_->questions.push_back({numbers_, std::move(name), last.turn});
  shared_->wake.notify_one();
  return true;
}

void NameLookup::leave(const void* who) {
  asked_.erase(who);
  last_.erase(who);
}

void NameLookup::on_events(uint32_t) {
  eventfd_t count = 0;
  ::eventfd_read(shared_->event.get(), &count);
  std::vector<Told> told;
  {
    const MutexLock lock(shared_->mutex);
    told.swap(shared_->told);
  }
  on_event_();
  for (const Told& each : told) {
    const auto same = [&](const auto& asked) { return asked.second.number == each.number; };
    const auto asked = std::find_if(asked_.begin(), asked_.end(), same);
    if (asked != asked_.end()) {
      const Found found = std::move(asked->second.found);
      asked_.erase(asked);
      found(each.ip);
    }
  }
}

}  // namespace penstock::queue
