#include "worker/pool/admit_thread.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "shared/base/clock.h"

namespace penstock {
namespace {

Fd make_event() {
  Fd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) {
    throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  return event;
}

}  // namespace

AdmitThread::AdmitThread(Engine& engine)
    : engine_(engine), done_(make_event()), thread_([this] { run(); }) {}

AdmitThread::~AdmitThread() {
  {
    const MutexLock lock(mutex_);
    over_ = true;
  }
  added_.notify_one();
  thread_.join();
}

void AdmitThread::add(Id id, Request request) {
  {
    const MutexLock lock(mutex_);
    Item& item = items_.emplace_back();
    item.id = id;
    item.request = std::move(request);
  }
  added_.notify_one();
}

std::list<AdmitThread::Item>::iterator AdmitThread::find(Id id) {
  return std::find_if(items_.begin(), items_.end(),
                      [&](const Item& item) { return item.id == id && !item.dropped; });
}

bool AdmitThread::has(Id id) {
  const MutexLock lock(mutex_);
  return find(id) != items_.end();
}

bool AdmitThread::drop(Id id) {
  const MutexLock lock(mutex_);
  const auto found = find(id);
  if (found == items_.end()) {
    return false;
  }
  found->dropped = true;
  if (!found->is_read() && &*found != current_) {
    items_.erase(found);
  }
  return true;
}

bool AdmitThread::idle() {
  const MutexLock lock(mutex_);
  return items_.empty();
}

size_t AdmitThread::count(bool checks) const {
  const MutexLock lock(mutex_);
  return static_cast<size_t>(std::count_if(items_.begin(), items_.end(), [&](const Item& item) {
    return item.id.is_check == checks && !item.dropped;
  }));
}

int64_t AdmitThread::reading_since_ns() const {
  const MutexLock lock(mutex_);
  return current_ == nullptr ? 0 : begun_ns_;
}

std::vector<AdmitThread::Admitted> AdmitThread::take() {
  eventfd_t ignored = 0;
  ::eventfd_read(done_.get(), &ignored);
  std::vector<Admitted> taken;
  const MutexLock lock(mutex_);
  while (!items_.empty() && items_.front().is_read()) {
    Item& item = items_.front();
    if (item.fault != nullptr) {
      std::rethrow_exception(item.fault);
    }
    if (!item.dropped) {
      taken.push_back({item.id, *std::move(item.verdict)});
    }
    items_.pop_front();
  }
  return taken;
}

AdmitThread::Item* AdmitThread::next() {
  const auto found =
      std::find_if(items_.begin(), items_.end(), [](const Item& item) { return !item.is_read(); });
  return found == items_.end() ? nullptr : &*found;
}

void AdmitThread::run() {
  for (;;) {
    Item* item = nullptr;
    {
      const MutexLock lock(mutex_);
      while (!over_ && next() == nullptr) {
        added_.wait(mutex_);
      }
      if (over_) {
        return;
      }
      current_ = item = next();
      begun_ns_ = monotonic_ns();
    }
    std::optional<Verdict> verdict;
    std::exception_ptr fault;
    try {
      verdict = engine_.admit(item->request);
    } catch (...) {
      fault = std::current_exception();
    }
    {
      const MutexLock lock(mutex_);
      current_ = nullptr;
      item->request = {};
      item->verdict = std::move(verdict);
      item->fault = std::move(fault);
    }
    ::eventfd_write(done_.get(), 1);
  }
}

}  // namespace penstock
