#include "ngx_module/pages/queue_counts.h"

#include "ngx_module/admit/status_source.h"

namespace penstock {
namespace {

constexpr std::string_view kMetricsSuffix = ".metrics";

const wire::MetricsPage* read_metrics(ngx_pool_t* pool, const StatusSource& source) noexcept {
  char path[sizeof(sockaddr_un::sun_path) + 16];
  const std::string_view socket = view(source.socket);
  if (socket.size() + kMetricsSuffix.size() >= sizeof path) {
    return nullptr;
  }
  *ngx_cpymem(ngx_cpymem(path, socket.data(), socket.size()), kMetricsSuffix.data(),
              kMetricsSuffix.size()) = '\0';
  auto* page = static_cast<wire::MetricsPage*>(ngx_palloc(pool, sizeof(wire::MetricsPage)));
  const bool good = page != nullptr && read_page(path, page, sizeof *page) &&
                    page->magic == wire::kMetricsMagic && page->bytes == sizeof *page;
  return good ? page : nullptr;
}

}  // namespace

bool read_queue_counts(ngx_pool_t* pool, const LocConf& loc,
                       PoolArray<QueueCounts>& counts) noexcept {
  for (const StatusSource* source : loc.status) {
    const wire::MetricsPage* page = read_metrics(pool, *source);
    if (page != nullptr && counts.push(pool, {view(source->label), page}) == nullptr) {
      return false;
    }
  }
  return true;
}

}  // namespace penstock
