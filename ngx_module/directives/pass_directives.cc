// penstock_pass, penstock_owner, penstock_share and what every upstream module of Nginx lets an
// operator set.
#include "ngx_module/conf/conf.h"

#include <algorithm>

#include "ngx_module/admit/status_source.h"
#include "ngx_module/hand_over/jobs.h"
#include "ngx_module/hand_over/pass.h"
#include "ngx_module/reply/page.h"

namespace penstock {
namespace {

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
  static ngx_path_init_t temp_path = {ngx_string("penstock_temp"), {1, 2, 0}};
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

ngx_http_core_loc_conf_t* core_of(ngx_conf_t* cf) noexcept {
  return static_cast<ngx_http_core_loc_conf_t*>(
      ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
}

}  // namespace

namespace {

// The upstream that the directive at hand names.
char* take_upstream(ngx_conf_t* cf, LocConf& loc) noexcept {
  if (loc.upstream.upstream != nullptr) {
    return const_cast<char*>(loc.asks == (view(arg(cf, 0)) == "penstock_jobs")
                                 ? "is duplicate"
                                 : "stands beside another that hands over; give it a location of "
                                   "its own");
  }
  if (core_of(cf)->handler != nullptr) {
    return refuse(cf,
                  "\"%V\" stands where another directive answers already; give it a location of "
                  "its own",
                  &arg(cf, 0));
  }
  if (view(arg(cf, 1)).find('$') != std::string_view::npos) {
    return refuse(cf, "%V takes the name of an upstream or unix:PATH, without variables",
                  &arg(cf, 0));
  }
  ngx_url_t url;
  ngx_memzero(&url, sizeof url);
  url.url = arg(cf, 1);
  url.no_resolve = 1;
  loc.upstream.upstream = ngx_http_upstream_add(cf, &url, 0);
  loc.server = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
  loc.passes = true;
  return loc.upstream.upstream == nullptr ? kConfError : NGX_CONF_OK;
}

}  // namespace

char* read_pass(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  if (char* const failed = take_upstream(cf, loc); failed != NGX_CONF_OK) {
    return failed;
  }
  ngx_str_set(&loc.queue, "default");
  if (cf->args->nelts == 3) {
    ngx_str_t& queue = arg(cf, 2);
    if (queue.len <= 6 || ngx_strncmp(queue.data, "queue=", 6) != 0 ||
        queue.len - 6 >= wire::kQueueNameBytes) {
      return refuse(cf,
                    "unknown parameter \"%V\" of penstock_pass; it takes queue=NAME, of at most "
                    "%uz characters",
                    &queue, wire::kQueueNameBytes - 1);
    }
    loc.queue = {queue.len - 6, queue.data + 6};
  }
  ngx_http_core_loc_conf_t* core = core_of(cf);
  core->handler = pass_request;
  if (core->name.len > 0 && core->name.data[core->name.len - 1] == '/') {
    core->auto_redirect = 1;
  }
  return main_conf(cf)->passes.push(cf->pool, &loc) == nullptr ? kConfError : NGX_CONF_OK;
}

char* read_jobs(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  ngx_http_core_loc_conf_t* core = core_of(cf);
  if (!is_prefix_location(*core)) {
    return refuse(cf, "penstock_jobs stands in a prefix location, as in location /jobs { ... }");
  }
  if (char* const failed = take_upstream(cf, loc); failed != NGX_CONF_OK) {
    return failed;
  }
  core->handler = ask_about_jobs;
  loc.asks = true;
  loc.jobs_path = core->name;
  while (loc.jobs_path.len > 0 && loc.jobs_path.data[loc.jobs_path.len - 1] == '/') {
    --loc.jobs_path.len;
  }
  loc.upstream.force_ranges = 1;  // of results that come from penstockd whole
  return main_conf(cf)->jobs.push(cf->pool, &loc) == nullptr ? kConfError : NGX_CONF_OK;
}

char* read_dedupe(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  if (loc.dedupe != NGX_CONF_UNSET) {
    return const_cast<char*>("is duplicate");
  }
  const std::string_view word = view(arg(cf, 1));
  const std::string_view more = cf->args->nelts == 3 ? view(arg(cf, 2)) : "on_duplicate=join";
  if ((word != "on" && word != "off") ||
      (more != "on_duplicate=join" && more != "on_duplicate=reject")) {
    return refuse(cf,
                  "penstock_dedupe takes on or off, then on_duplicate=join (the default) or "
                  "on_duplicate=reject");
  }
  loc.dedupe = word == "on" ? 1 : 0;
  loc.reject_duplicates = more == "on_duplicate=reject";
  return NGX_CONF_OK;
}

char* read_value(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept {
  auto& value = *reinterpret_cast<Value*>(static_cast<char*>(conf) + command->offset);
  return value.kind != Value::Kind::kNone ? const_cast<char*>("is duplicate")
                                          : compile_value(cf, arg(cf, 1), value);
}

char* read_origins(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  if (!loc.origins.empty()) {
    return const_cast<char*>("is duplicate");
  }
  for (ngx_uint_t i = 1; i < cf->args->nelts; ++i) {
    const std::string_view origin = view(arg(cf, i));
    const size_t scheme = origin.find("://");
    const bool whole = scheme != std::string_view::npos && scheme > 0 &&
                       origin.size() > scheme + 3 && origin.find('/', scheme + 3) == origin.npos;
    if (!whole && (origin != kAnyOrigin || cf->args->nelts != 2)) {
      return refuse(cf,
                    "penstock_origins takes origins such as https://app.example, without a path, "
                    "or the one word any");
    }
    if (loc.origins.push(cf->pool, origin) == nullptr) {
      return kConfError;
    }
  }
  return NGX_CONF_OK;
}

namespace {

// The penstockds on this machine that a page tells of, each once.
ngx_int_t bind_watcher(ngx_conf_t* cf, LocConf& loc) noexcept {
  const ngx_array_t* servers = loc.watched->servers;
  for (ngx_uint_t i = 0; servers != nullptr && i < servers->nelts; ++i) {
    const auto& server = static_cast<ngx_http_upstream_server_t*>(servers->elts)[i];
    const std::string_view name = server.naddrs > 0 ? view(server.addrs[0].name) : "";
    if (!name.starts_with("unix:")) {
      continue;
    }
    StatusSource* source = source_of(cf, name.substr(5));
    if (source == nullptr) {
      return NGX_ERROR;
    }
    if (std::find(loc.status.begin(), loc.status.end(), source) == loc.status.end() &&
        loc.status.push(cf->pool, source) == nullptr) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace

ngx_int_t bind_sources(ngx_conf_t* cf) noexcept {
  MainConf& main = *main_conf(cf);
  for (LocConf* loc : main.watchers) {
    if (bind_watcher(cf, *loc) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  for (LocConf* loc : main.passes) {
    const ngx_array_t* servers = loc->upstream.upstream->servers;
    for (ngx_uint_t i = 0; servers != nullptr && i < servers->nelts; ++i) {
      const auto& server = static_cast<ngx_http_upstream_server_t*>(servers->elts)[i];
      const std::string_view name = server.naddrs > 0 ? view(server.addrs[0].name) : "";
      if (server.down != 0) {
        continue;
      }
      if (name.substr(0, 5) != "unix:") {
        loc->status = {};  // one that nothing is known of may always take the job
        break;
      }
      StatusSource* source = source_of(cf, name.substr(5));
      if (source == nullptr || loc->status.push(cf->pool, source) == nullptr) {
        return NGX_ERROR;
      }
    }
  }
  return NGX_OK;
}

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
  ngx_http_core_loc_conf_t* core = core_of(cf);
  loc.own_limits = !loc.limits.empty() || (core->noname && above.own_limits);
  if (loc.limits.empty() && !loc.limits_off) {
    loc.limits = above.limits;
    loc.told = above.told;
    loc.later = above.later;
    loc.degrades = above.degrades;
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
  ngx_conf_merge_msec_value(loc.max_wait, above.max_wait, 0);
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
      above.upstream.upstream != nullptr) {
    loc.upstream.upstream = above.upstream.upstream;
    loc.queue = above.queue;
    loc.passes = above.passes;
    loc.asks = above.asks;
    loc.jobs_path = above.jobs_path;
    loc.server = above.server;
    (main_conf(cf)->*(loc.asks ? &MainConf::jobs : &MainConf::passes)).push(cf->pool, &loc);
  }
  if (core->lmt_excpt && core->handler == nullptr && loc.upstream.upstream != nullptr) {
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
