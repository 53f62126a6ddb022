#include "ngx_module/pages/limits_events.h"

#include "ngx_module/pages/quota_report.h"
#include "ngx_module/request/request.h"

namespace penstock {

// What one stream has told.
struct LimitsTold {
  Quota quota;
  ngx_buf_t* buffer = nullptr;  // for an event; nullptr: there is nothing to tell
  ngx_msec_t looked = 0;
  bool said = false;
};

namespace {

constexpr ngx_msec_t kEveryMs = 5000;
constexpr size_t kBytesAround = 512;  // of an event, beside its limits ...
constexpr size_t kBytesOfOne = 512;   // ... and of each of them
constexpr std::string_view kBefore = "event: limits\ndata: ";

LimitsTold* begin(ngx_http_request_t* r) noexcept {
  auto* told = make<LimitsTold>(r->pool);
  Quota::UnknownTier unknown;
  if (told == nullptr || told->quota.find(r, *loc_conf(r)->quota_shown, unknown) != NGX_DECLINED ||
      told->quota.size() == 0) {
    return told;
  }
  const size_t docs = told->quota.tier() == nullptr ? 0 : told->quota.tier()->docs.len;
  told->buffer =
      ngx_create_temp_buf(r->pool, kBytesAround + 6 * docs + kBytesOfOne * told->quota.size());
  return told;
}

// Whether some of the last event has not gone out yet.
bool is_on_its_way(ngx_http_request_t* r, const ngx_buf_t& buffer) noexcept {
  for (const ngx_chain_t* chain : {r->upstream->out_bufs, r->upstream->busy_bufs}) {
    for (; chain != nullptr; chain = chain->next) {
      if (chain->buf->pos >= buffer.start && chain->buf->pos < buffer.end) {
        return true;
      }
    }
  }
  return false;
}

// Called behind each event of the stream.
ngx_str_t limits_event(ngx_http_request_t* r, RequestState& state) noexcept {
  if (state.limits_told == nullptr) {
    state.limits_told = begin(r);
  }
  LimitsTold* const told = state.limits_told;
  if (told == nullptr || told->buffer == nullptr ||
      (told->said && ngx_current_msec - told->looked < kEveryMs) ||
      is_on_its_way(r, *told->buffer)) {
    return {0, nullptr};
  }
  told->looked = ngx_current_msec;
  if (!told->quota.look() && told->said) {
    return {0, nullptr};
  }
  told->said = true;
  told->buffer->pos = told->buffer->last = told->buffer->start;
  Page page(r, *told->buffer);
  page.raw(kBefore);
  told->quota.write(page);
  page.raw("\n");
  return page.text();
}

}  // namespace

void bind_limits_events(ngx_conf_t* cf) noexcept {
  const MainConf& main = *main_conf(cf);
  for (LocConf* jobs : main.jobs) {
    for (const LocConf* quota : main.quotas) {
      if (quota->server == jobs->server && jobs->quota_shown == nullptr) {
        jobs->quota_shown = quota;
        jobs->limits_event = limits_event;
      }
    }
  }
}

}  // namespace penstock
