#include "ngx_module/admit/status_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "shared/base/clock.h"
#include "shared/metrics/exposition.h"

namespace penstock {
namespace {

constexpr ngx_msec_t kLookEveryMs = 100;

void look(StatusSource& source) noexcept {
  if (!read_page(reinterpret_cast<char*>(source.path.data), source.page, sizeof *source.page)) {
    source.page->magic.store(0, std::memory_order_relaxed);
  }
}

void on_timer(ngx_event_t* event) noexcept {
  auto* main = static_cast<MainConf*>(event->data);
  for (StatusSource* source : main->sources) {
    look(*source);
  }
  if (!ngx_exiting) {
    ngx_add_timer(event, kLookEveryMs);
  }
}

const char* reason_of(wire::QueueState state) noexcept {
  switch (state) {
    case wire::QueueState::kFull:
      return "The queue is full.";
    case wire::QueueState::kNoWorker:
      return "No worker is running.";
    case wire::QueueState::kCannotLoad:
      return "The model cannot be loaded.";
    case wire::QueueState::kDraining:
      return "The service is shutting down.";
    case wire::QueueState::kAway:
      return "The hosts' Redis does not answer.";
    default:
      return nullptr;
  }
}

// What one penstockd says; false when it would take the job, or cannot be believed.
bool refuses(const StatusSource& source, std::string_view queue, int64_t now_ns,
             QueueRefusal& why) noexcept {
  const wire::StatusPage* page = fresh_page(source, now_ns);
  const wire::QueueStatus* status = page == nullptr ? nullptr : page->find(queue);
  if (status == nullptr) {
    return false;
  }
  const auto state = static_cast<wire::QueueState>(status->state.load(std::memory_order_relaxed));
  const char* reason = reason_of(state);
  if (reason == nullptr) {
    return false;
  }
  why.reason = reason;
  why.may_promise = why.may_promise || state == wire::QueueState::kNoWorker ||
                    state == wire::QueueState::kCannotLoad || state == wire::QueueState::kAway;
  why.retry_after_s = std::clamp<int64_t>(
      static_cast<int64_t>(status->retry_after_s.load(std::memory_order_relaxed)), 1, 86400);
  constexpr int64_t kLongest = 3600 * kNsPerSec;
  const uint64_t step_us = status->drain_step_us.load(std::memory_order_relaxed);
  why.step_ns = static_cast<int64_t>(std::min<uint64_t>(step_us, kLongest / kNsPerUs)) * kNsPerUs;
  const int64_t length = status->length.load(std::memory_order_relaxed);
  why.drained_ns = length > 0 && why.step_ns > kLongest / length ? kLongest : length * why.step_ns;
  why.taken_ns = std::clamp<int64_t>(
      status->returns_until_ns.load(std::memory_order_relaxed) - now_ns, 0, why.drained_ns);
  return true;
}

}  // namespace

bool read_page(const char* path, void* page, size_t bytes) noexcept {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  const bool whole = fd >= 0 && ::read(fd, page, bytes) == static_cast<ssize_t>(bytes);
  if (fd >= 0) {
    ::close(fd);
  }
  return whole;
}

const wire::StatusPage* fresh_page(const StatusSource& source, int64_t now_ns) noexcept {
  const wire::StatusPage* page = source.page;
  if (page == nullptr || page->magic.load(std::memory_order_acquire) != wire::kStatusMagic) {
    return nullptr;
  }
  // One from before the last boot has a heartbeat in the future.
  const int64_t age_ns = now_ns - page->heartbeat_ns.load(std::memory_order_relaxed);
  return age_ns > wire::kStatusStaleNs || age_ns < 0 ? nullptr : page;
}

StatusSource* source_of(ngx_conf_t* cf, std::string_view socket_path) noexcept {
  MainConf& main = *main_conf(cf);
  constexpr std::string_view kSuffix = ".status";
  for (StatusSource* source : main.sources) {
    if (view(source->socket) == socket_path) {
      return source;
    }
  }
  auto* source = make<StatusSource>(cf->pool);
  auto* path = static_cast<u_char*>(ngx_pnalloc(cf->pool, socket_path.size() + kSuffix.size() + 1));
  if (source == nullptr || path == nullptr || main.sources.push(cf->pool, source) == nullptr) {
    return nullptr;
  }
  ngx_memcpy(path, socket_path.data(), socket_path.size());
  ngx_memcpy(path + socket_path.size(), kSuffix.data(), kSuffix.size() + 1);
  source->socket = {socket_path.size(), path};
  source->path = {socket_path.size() + kSuffix.size(), path};
  source->label = copy(cf->pool, metrics::escape_label(socket_path));
  return source->label.data == nullptr ? nullptr : source;
}

bool queue_refuses(const LocConf& loc, QueueRefusal& why) noexcept {
  if (loc.status.empty()) {
    return false;
  }
  const int64_t now_ns = monotonic_ns();
  int64_t soonest_s = INT64_MAX;
  for (const StatusSource* source : loc.status) {
    if (!refuses(*source, view(loc.queue), now_ns, why)) {
      return false;
    }
    soonest_s = std::min(soonest_s, why.retry_after_s);
  }
  why.retry_after_s = soonest_s;
  return true;
}

bool queue_answers(const LocConf& loc) noexcept {
  const int64_t now_ns = monotonic_ns();
  return loc.status.empty() ||
         std::any_of(loc.status.begin(), loc.status.end(), [&](const StatusSource* source) {
           return fresh_page(*source, now_ns) != nullptr;
         });
}

ngx_int_t start_status_timer(ngx_cycle_t* cycle) noexcept {
  MainConf* main = main_conf(cycle);
  if (main == nullptr || main->sources.empty()) {
    return NGX_OK;
  }
  auto* event = static_cast<ngx_event_t*>(ngx_pcalloc(cycle->pool, sizeof(ngx_event_t)));
  if (event == nullptr) {
    return NGX_ERROR;
  }
  for (StatusSource* source : main->sources) {
    void* memory = ngx_pcalloc(cycle->pool, sizeof(wire::StatusPage));
    if (memory == nullptr) {
      return NGX_ERROR;
    }
    source->page = new (memory) wire::StatusPage();
  }
  event->handler = on_timer;
  event->data = main;
  event->log = cycle->log;
  event->cancelable = 1;  // does not keep a worker that is to exit
  on_timer(event);
  return NGX_OK;
}

}  // namespace penstock
