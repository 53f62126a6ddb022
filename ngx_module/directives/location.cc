#include "ngx_module/directives/location.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "ngx_module/conf/conf.h"
#include "ngx_module/hand_over/jobs.h"
#include "ngx_module/hand_over/pass.h"
#include "ngx_module/reply/page.h"

namespace penstock {
namespace {

// Beside what Nginx was built to take for its own: "/var/lib/nginx/penstock_temp".
constexpr auto kTempPath = [] {
  constexpr std::string_view kProxy = NGX_HTTP_PROXY_TEMP_PATH;
  constexpr std::string_view kName = "penstock_temp";
  constexpr size_t kFolder = kProxy.rfind('/') + 1;  // 0 where there is none
  std::array<char, kFolder + kName.size() + 1> path{};
  std::copy(kName.begin(), kName.end(), std::copy_n(kProxy.begin(), kFolder, path.begin()));
  return path;
}();

void unset(ngx_http_upstream_conf_t& u) noexcept {
  u.store = 0;
  u.buffering = NGX_CONF_UNSET;
  u.request_buffering = 1;
  u.ignore_client_abort = NGX_CONF_UNSET;
  u.intercept_errors = NGX_CONF_UNSET;
  u.connect_timeout = NGX_CONF_UNSET_MSEC;
  u.send_timeout = NGX_CONF_UNSET_MSEC;
  u.read_timeout = NGX_CONF_UNSET_MSEC;
  u.next_upstream_timeout = NGX_CONF_UNSET_MSEC;
  u.next_upstream_tries = NGX_CONF_UNSET_UINT;
  u.buffer_size = NGX_CONF_UNSET_SIZE;
  u.busy_buffers_size_conf = NGX_CONF_UNSET_SIZE;
  u.max_temp_file_size_conf = NGX_CONF_UNSET_SIZE;
  u.temp_file_write_size_conf = NGX_CONF_UNSET_SIZE;
  u.hide_headers = static_cast<ngx_array_t*>(NGX_CONF_UNSET_PTR);
  u.pass_headers = static_cast<ngx_array_t*>(NGX_CONF_UNSET_PTR);
  u.pass_request_headers = 0;
  u.pass_request_body = 0;
  ngx_str_set(&u.module, "penstock");
}

char* merge_buffers(ngx_conf_t* cf, ngx_http_upstream_conf_t& u,
                    const ngx_http_upstream_conf_t& above) noexcept {
  ngx_conf_merge_size_value(u.buffer_size, above.buffer_size, ngx_pagesize);
  ngx_conf_merge_bufs_value(u.bufs, above.bufs, 8, ngx_pagesize);
  if (u.bufs.num < 3) {
    return refuse(cf,
                  "penstock_buffers needs at least 3 buffers, such as \"penstock_buffers 8 4k\"");
  }
  if (u.buffer_size < 4096) {
    return refuse(cf, "penstock_buffer_size must be 4k or more: the head of an answer has to fit");
  }
  const size_t largest = ngx_max(u.buffer_size, u.bufs.size);
  const size_t all_but_one = (static_cast<size_t>(u.bufs.num) - 1) * u.bufs.size;
  if (all_but_one < largest) {
    return refuse(cf, "all penstock_buffers but one must hold a penstock_buffer_size");
  }
  // As set here, or further out, or as they suit the buffers.
  ngx_conf_merge_size_value(u.busy_buffers_size_conf, above.busy_buffers_size_conf,
                            NGX_CONF_UNSET_SIZE);
  ngx_conf_merge_size_value(u.max_temp_file_size_conf, above.max_temp_file_size_conf,
                            1024UL * 1024 * 1024);
  ngx_conf_merge_size_value(u.temp_file_write_size_conf, above.temp_file_write_size_conf,
                            NGX_CONF_UNSET_SIZE);
  u.busy_buffers_size = u.busy_buffers_size_conf == NGX_CONF_UNSET_SIZE
                            ? ngx_min(2 * largest, all_but_one)
                            : u.busy_buffers_size_conf;
  u.max_temp_file_size = u.max_temp_file_size_conf;
  u.temp_file_write_size = u.temp_file_write_size_conf == NGX_CONF_UNSET_SIZE
                               ? 2 * largest
                               : u.temp_file_write_size_conf;
  if (u.busy_buffers_size < largest || u.busy_buffers_size > all_but_one) {
    return refuse(cf,
                  "penstock_busy_buffers_size must hold a penstock_buffer_size, and be no more "
                  "than all penstock_buffers but one");
  }
  if (u.temp_file_write_size < largest) {
    return refuse(cf, "penstock_temp_file_write_size must hold a penstock_buffer_size");
  }
  if (u.max_temp_file_size != 0 && u.max_temp_file_size < largest) {
    return refuse(cf,
                  "penstock_max_temp_file_size must be 0, for no file, or hold a "
                  "penstock_buffer_size");
  }
  return NGX_CONF_OK;
}

char* merge_upstream(ngx_conf_t* cf, ngx_http_upstream_conf_t& u,
                     ngx_http_upstream_conf_t& above) noexcept {
  // Off: an answer streams as it is made.
  ngx_conf_merge_value(u.buffering, above.buffering, 0);
  ngx_conf_merge_value(u.ignore_client_abort, above.ignore_client_abort, 0);
  ngx_conf_merge_value(u.intercept_errors, above.intercept_errors, 0);
  ngx_conf_merge_msec_value(u.connect_timeout, above.connect_timeout, 60000);
  ngx_conf_merge_msec_value(u.send_timeout, above.send_timeout, 60000);
  // penstockd gives a sign of life each 15 s, however long the queue.
  ngx_conf_merge_msec_value(u.read_timeout, above.read_timeout, 60000);
  ngx_conf_merge_msec_value(u.next_upstream_timeout, above.next_upstream_timeout, 0);
  ngx_conf_merge_uint_value(u.next_upstream_tries, above.next_upstream_tries, 0);
  // A job whose answer hasn't begun may be given to another penstockd: running it twice harms no
  // one. Promising it twice would: see upstream_of_promises.
  ngx_conf_merge_bitmask_value(
      u.next_upstream, above.next_upstream,
      (NGX_CONF_BITMASK_SET | NGX_HTTP_UPSTREAM_FT_ERROR | NGX_HTTP_UPSTREAM_FT_TIMEOUT |
       NGX_HTTP_UPSTREAM_FT_HTTP_503 | NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT));
  if ((u.next_upstream & NGX_HTTP_UPSTREAM_FT_OFF) != 0) {
    u.next_upstream = NGX_CONF_BITMASK_SET | NGX_HTTP_UPSTREAM_FT_OFF;
  }
  if (merge_buffers(cf, u, above) != NGX_CONF_OK) {
    return kConfError;
  }
  static ngx_path_init_t temp_path = {str({kTempPath.data(), kTempPath.size() - 1}), {1, 2, 0}};
  if (ngx_conf_merge_path_value(cf, &u.temp_path, above.temp_path, &temp_path) != NGX_OK) {
    return kConfError;
  }
  static ngx_str_t hidden[] = {ngx_null_string};
  ngx_hash_init_t hash;
  ngx_memzero(&hash, sizeof hash);
  hash.max_size = 512;
  hash.bucket_size = ngx_align(64, ngx_cacheline_size);
  hash.name = const_cast<char*>("penstock_hide_headers_hash");
  return ngx_http_upstream_hide_headers_hash(cf, &u, &above, hidden, &hash) == NGX_OK ? NGX_CONF_OK
                                                                                      : kConfError;
}

// Whoever wants earlier answers in place of none, and does not say whose, wants the caller's own.
void merge_earlier(LocConf& loc, const LocConf& above) noexcept {
  if (loc.earlier == NGX_CONF_UNSET_UINT) {
    loc.earlier = above.earlier;
    loc.earlier_age_s = above.earlier_age_s;
  }
  if (loc.earlier_if_busy == NGX_CONF_UNSET) {
    loc.earlier_if_busy = above.earlier_if_busy;
  }
  const bool wanted = loc.earlier_if_busy == 1 || loc.to_earlier;
  loc.earlier_of = loc.earlier != NGX_CONF_UNSET_UINT ? static_cast<wire::Earlier>(loc.earlier)
                   : wanted                           ? wire::Earlier::kOwn
                                                      : wire::Earlier::kNone;
}

}  // namespace

void* create_loc_conf(ngx_conf_t* cf) noexcept {
  // Zeroed first, as Nginx's own structures in it must be.
  void* memory = ngx_pcalloc(cf->pool, sizeof(LocConf));
  if (memory == nullptr) {
    return nullptr;
  }
  auto* loc = new (memory) LocConf();
  unset(loc->upstream);
  return loc;
}

char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept {
  auto& above = *static_cast<LocConf*>(parent);
  auto& loc = *static_cast<LocConf*>(child);
  ngx_http_core_loc_conf_t* core = core_conf(cf);
  loc.own_limits = !loc.limits.empty() || (core->noname && above.own_limits);
  if (loc.limits.empty() && !loc.limits_off) {
    loc.limits = above.limits;
    loc.told = above.told;
    loc.later = above.later;
    loc.degrades = above.degrades;
    loc.to_earlier = above.to_earlier;
    loc.challenges = above.challenges;
    loc.shared = above.shared;
  }
  if (loc.costs.empty()) {
    loc.costs = above.costs;
  }
  if (loc.owner.kind == Value::Kind::kNone) {
    loc.owner = above.owner;
  }
  if (loc.share.kind == Value::Kind::kNone) {
    loc.share = above.share;
  }
  if (loc.origins.empty()) {
    loc.origins = above.origins;
  }
  if (loc.dedupe == NGX_CONF_UNSET) {
    loc.dedupe = above.dedupe == NGX_CONF_UNSET ? 0 : above.dedupe;
    loc.reject_duplicates = above.reject_duplicates;
  }
  merge_earlier(loc, above);
  if (loc.challenging.level == NGX_CONF_UNSET_UINT) {
    loc.challenging.provider = above.challenging.provider;
  }
  ngx_conf_merge_uint_value(loc.challenging.level, above.challenging.level, 1);
  ngx_conf_merge_uint_value(loc.challenging.format, above.challenging.format,
                            Challenging::kFormatBySecurity);
  ngx_conf_merge_sec_value(loc.challenging.pass_s, above.challenging.pass_s, 3600);
  ngx_conf_merge_value(loc.require_key, above.require_key, 0);
  loc.sign_in_s = loc.sign_in_s == 0 ? above.sign_in_s : loc.sign_in_s;
  ngx_conf_merge_msec_value(loc.max_wait, above.max_wait, 0);
  if (loc.waiting_events == NGX_CONF_UNSET_MSEC) {
    constexpr ngx_msec_t kUsualMs = 5000;
    ngx_conf_merge_msec_value(loc.waiting_events, above.waiting_events, kUsualMs);
    loc.waiting_as_events = above.waiting_as_events;
  }
  if (loc.passes && core->handler != nullptr && core->handler != pass_request &&
      core->handler != ask_about_jobs) {
    return refuse_second_answer(cf);
  }
  ngx_conf_merge_uint_value(loc.image_cost, above.image_cost, 1000);
  ngx_conf_merge_uint_value(loc.log_level, above.log_level, NGX_LOG_ERR);
  ngx_conf_merge_uint_value(loc.rate_headers, above.rate_headers, kRateHeadersAll);
  // `if` and `limit_except` blocks hand over where their location does, but for those in which
  // another directive answers.
  if (core->noname && core->handler == nullptr && loc.upstream.upstream == nullptr &&
      above.upstream.upstream != nullptr && above.console == nullptr) {
    loc.upstream.upstream = above.upstream.upstream;
    loc.queue = above.queue;
    loc.passes = above.passes;
    loc.asks = above.asks;
    loc.jobs_path = above.jobs_path;
    loc.server = above.server;
    (main_conf(cf)->*(loc.asks ? &MainConf::jobs : &MainConf::passes)).push(cf->pool, &loc);
  }
  if (core->lmt_excpt && core->handler == nullptr && loc.upstream.upstream != nullptr &&
      loc.console == nullptr) {
    core->handler = loc.asks ? ask_about_jobs : pass_request;
  }
  if (merge_page(cf, above, loc) != NGX_CONF_OK) {
    return kConfError;
  }
  if (merge_upstream(cf, loc.upstream, above.upstream) != NGX_CONF_OK) {
    return kConfError;
  }
  loc.upstream_of_promises = loc.upstream;
  loc.upstream_of_promises.next_upstream &= ~ngx_uint_t{NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT};
  return NGX_CONF_OK;
}

}  // namespace penstock
