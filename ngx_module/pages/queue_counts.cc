#include "ngx_module/pages/queue_counts.h"

#include <fcntl.h>
#include <unistd.h>

#include "ngx_module/admit/status_source.h"

namespace penstock {
namespace {

constexpr std::string_view kMetricsSuffix = ".metrics";

const wire::MetricsPage* read_page(ngx_pool_t* pool, const StatusSource& source) noexcept {
  char path[sizeof(sockaddr_un::sun_path) + 16];
  const std::string_view socket = view(source.socket);
  if (socket.size() + kMetricsSuffix.size() >= sizeof path) {
    return nullptr;
  }
  *ngx_cpymem(ngx_cpymem(path, socket.data(), socket.size()), kMetricsSuffix.data(),
              kMetricsSuffix.size()) = '\0';
  auto* page = static_cast<wire::MetricsPage*>(ngx_palloc(pool, sizeof(wire::MetricsPage)));
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  const bool whole =
      page != nullptr && fd >= 0 &&
      ::read(fd, static_cast<void*>(page), sizeof *page) == static_cast<ssize_t>(sizeof *page) &&
      page->magic == wire::kMetricsMagic && page->bytes == sizeof *page;
  if (fd >= 0) {
    ::close(fd);
  }
  return whole ? page : nullptr;
}

}  // namespace

bool read_queue_counts(ngx_pool_t* pool, const LocConf& loc,
                       PoolArray<QueueCounts>& counts) noexcept {
  for (const StatusSource* source : loc.status) {
    const wire::MetricsPage* page = read_page(pool, *source);
    if (page != nullptr && counts.push(pool, {view(source->label), page}) == nullptr) {
      return false;
    }
  }
  return true;
}

}  // namespace penstock
