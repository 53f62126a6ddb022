// The module as Nginx sees it: directives, phases, life cycle. Read from here.
// The folders, from the top down; each has a README of what it is:
//   directives   pages   hand_over   admit   keys   challenge   lease   reply   request   zone conf
#include "ngx_module/admit/admission.h"
#include "ngx_module/admit/status_source.h"
#include "ngx_module/conf/conf.h"
#include "ngx_module/directives/bind_limits.h"
#include "ngx_module/directives/bind_sources.h"
#include "ngx_module/directives/challenge_directive.h"
#include "ngx_module/directives/cost_directives.h"
#include "ngx_module/directives/key_directives.h"
#include "ngx_module/directives/limit_directives.h"
#include "ngx_module/directives/location.h"
#include "ngx_module/directives/pass_directives.h"
#include "ngx_module/directives/tier_directives.h"
#include "ngx_module/directives/zone_directive.h"
#include "ngx_module/hand_over/edge_line.h"
#include "ngx_module/hand_over/jobs.h"
#include "ngx_module/hand_over/stored_file.h"
#include "ngx_module/keys/issued_keys.h"
#include "ngx_module/keys/known_key.h"
#include "ngx_module/lease/lessee.h"
#include "ngx_module/pages/challenge_answer.h"
#include "ngx_module/pages/console.h"
#include "ngx_module/pages/decision.h"
#include "ngx_module/pages/limits_events.h"
#include "ngx_module/pages/metrics.h"
#include "ngx_module/pages/quota.h"
#include "ngx_module/pages/sign_in.h"
#include "ngx_module/pages/ui.h"
#include "ngx_module/reply/reply.h"
#include "ngx_module/request/body.h"
#include "ngx_module/request/body_filter.h"
#include "ngx_module/request/receipt.h"
#include "ngx_module/request/telemetry.h"
#include "ngx_module/request/telemetry_memory.h"
#include "ngx_module/variables.h"
#include "ngx_module/zone/store.h"
#include "ngx_module/zone/zone.h"

namespace penstock {
namespace {

void* create_main_conf(ngx_conf_t* cf) noexcept { return make<MainConf>(cf->pool); }

ngx_int_t preconfiguration(ngx_conf_t* cf) noexcept { return add_variables(cf); }

// Handlers of a phase run from the last to the first: `last` puts one behind all others.
bool add_handler(ngx_conf_t* cf, ngx_http_phases phase, ngx_http_handler_pt handler,
                 bool last) noexcept {
  auto* core = static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  ngx_array_t& list = core->phases[phase].handlers;
  auto* place = static_cast<ngx_http_handler_pt*>(ngx_array_push(&list));
  if (place == nullptr) {
    return false;
  }
  auto* handlers = static_cast<ngx_http_handler_pt*>(list.elts);
  if (last) {
    ngx_memmove(handlers + 1, handlers, static_cast<size_t>(place - handlers) * sizeof *handlers);
    place = handlers;
  }
  *place = handler;
  return true;
}

ngx_int_t postconfiguration(ngx_conf_t* cf) noexcept {
  if (check_upstreams(cf) != NGX_OK || finish_tiers(cf) != NGX_OK || bind_limits(cf) != NGX_OK ||
      bind_sources(cf) != NGX_OK || finish_body_fields(cf) != NGX_OK ||
      add_telemetry(cf) != NGX_OK || prepare_stores(cf) != NGX_OK || bind_quotas(cf) != NGX_OK) {
    return NGX_ERROR;
  }
  bind_jobs(cf);
  bind_limits_events(cf);
  if (!bind_consoles(cf)) {
    return NGX_ERROR;
  }
  // Behind realip, limit_req and limit_conn; and before anything else that follows the access
  // phase, whose own handlers are passed over when `satisfy any` is.
  const MainConf& main = *main_conf(cf);
  const bool hands_over = !main.passes.empty() || !main.jobs.empty() || !main.consoles.empty();
  if ((hands_over && !add_handler(cf, NGX_HTTP_SERVER_REWRITE_PHASE, serve_stored_file, false)) ||
      (main.keys != nullptr && !add_handler(cf, NGX_HTTP_ACCESS_PHASE, require_key, false)) ||
      !add_handler(cf, NGX_HTTP_PREACCESS_PHASE, judge_before_access, true) ||
      !add_handler(cf, NGX_HTTP_PRECONTENT_PHASE, judge_after_access, false) ||
      !add_handler(cf, NGX_HTTP_LOG_PHASE, count_outcome, false)) {
    return NGX_ERROR;
  }
  install_problem_filters();
  install_body_filter();
  return NGX_OK;
}

// Nothing can go wrong with the cycle any more.
ngx_int_t commit(ngx_cycle_t* cycle) noexcept {
  return begin_counting(cycle) == NGX_OK && begin_terms(cycle) == NGX_OK ? commit_stores(cycle)
                                                                         : NGX_ERROR;
}

// Also called in the cache manager and the cache loader, which answer nobody, may block, and leave
// without an end: those count, and hold nothing.
ngx_int_t start_worker(ngx_cycle_t* cycle) noexcept {
  if (const MainConf* main = main_conf(cycle); main != nullptr) {
    start_counting(*main);
    if (main->keys != nullptr && ngx_process != NGX_PROCESS_HELPER) {
      main->keys->start(cycle);
    }
  }
  if (ngx_process == NGX_PROCESS_HELPER) {
    return NGX_OK;
  }
  return start_process(cycle) == NGX_OK && start_status_timer(cycle) == NGX_OK &&
                 start_lessees(cycle) == NGX_OK
             ? start_edge_lines(cycle)
             : NGX_ERROR;
}

void stop_worker(ngx_cycle_t* cycle) noexcept {
  stop_edge_lines(cycle);
  stop_lessees(cycle);
}

constexpr ngx_uint_t kAnywhere = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

#define PENSTOCK_UPSTREAM(field) \
  (offsetof(LocConf, upstream) + offsetof(ngx_http_upstream_conf_t, field))

ngx_conf_bitmask_t next_upstream_words[] = {
    {ngx_string("error"), NGX_HTTP_UPSTREAM_FT_ERROR},
    {ngx_string("timeout"), NGX_HTTP_UPSTREAM_FT_TIMEOUT},
    {ngx_string("invalid_header"), NGX_HTTP_UPSTREAM_FT_INVALID_HEADER},
    {ngx_string("non_idempotent"), NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT},
    {ngx_string("http_500"), NGX_HTTP_UPSTREAM_FT_HTTP_500},
    {ngx_string("http_502"), NGX_HTTP_UPSTREAM_FT_HTTP_502},
    {ngx_string("http_503"), NGX_HTTP_UPSTREAM_FT_HTTP_503},
    {ngx_string("http_504"), NGX_HTTP_UPSTREAM_FT_HTTP_504},
    {ngx_string("http_404"), NGX_HTTP_UPSTREAM_FT_HTTP_404},
    {ngx_string("off"), NGX_HTTP_UPSTREAM_FT_OFF},
    {ngx_null_string, 0},
};

ngx_conf_enum_t log_levels[] = {
    {ngx_string("off"), 0},
    {ngx_string("info"), NGX_LOG_INFO},
    {ngx_string("notice"), NGX_LOG_NOTICE},
    {ngx_string("warn"), NGX_LOG_WARN},
    {ngx_string("error"), NGX_LOG_ERR},
    {ngx_null_string, 0},
};

ngx_conf_enum_t rate_headers_words[] = {
    {ngx_string("on"), kRateHeadersAll},
    {ngx_string("refused"), kRateHeadersRefused},
    {ngx_string("off"), kRateHeadersNone},
    {ngx_null_string, 0},
};

ngx_command_t commands[] = {
    {ngx_string("penstock_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_2MORE, read_zone,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_tier"), NGX_HTTP_MAIN_CONF | NGX_CONF_BLOCK | NGX_CONF_TAKE1, read_tier,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_limit"), kAnywhere | NGX_CONF_1MORE, read_limit, NGX_HTTP_LOC_CONF_OFFSET,
     0, nullptr},
    {ngx_string("penstock_challenge"), kAnywhere | NGX_CONF_1MORE, read_challenge,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_verify"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, read_verify,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_keys"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, read_keys,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_require_key"), kAnywhere | NGX_CONF_FLAG, read_require_key,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, require_key), nullptr},
    {ngx_string("penstock_sign_in"), NGX_HTTP_LOC_CONF | NGX_CONF_1MORE, read_sign_in,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_cost"), kAnywhere | NGX_CONF_TAKE2, read_cost, NGX_HTTP_LOC_CONF_OFFSET,
     0, nullptr},
    {ngx_string("penstock_image_cost"), kAnywhere | NGX_CONF_TAKE1, read_image_cost,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_log_level"), kAnywhere | NGX_CONF_TAKE1, read_word,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, log_level), &log_levels},
    {ngx_string("penstock_headers"), kAnywhere | NGX_CONF_TAKE1, read_word,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, rate_headers), &rate_headers_words},
    {ngx_string("penstock_docs"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, ngx_conf_set_str_slot,
     NGX_HTTP_MAIN_CONF_OFFSET, offsetof(MainConf, docs), nullptr},
    {ngx_string("penstock_max_delayed"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, ngx_conf_set_num_slot,
     NGX_HTTP_MAIN_CONF_OFFSET, offsetof(MainConf, max_delayed), nullptr},
    {ngx_string("penstock_quota"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, read_quota,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_decide"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, read_decide,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_settle"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, read_settle,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_metrics"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1,
     read_metrics, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_console"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE123,
     read_console, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_ui"), NGX_HTTP_LOC_CONF | NGX_CONF_TAKE12, read_ui,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_owner"), kAnywhere | NGX_CONF_TAKE1, read_value, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, owner), nullptr},
    {ngx_string("penstock_share"), kAnywhere | NGX_CONF_TAKE1, read_value, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, share), nullptr},
    {ngx_string("penstock_pass"),
     NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF | NGX_CONF_TAKE12, read_pass,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("penstock_jobs"), NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1, read_jobs,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_dedupe"), kAnywhere | NGX_CONF_TAKE12, read_dedupe,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_max_wait"), kAnywhere | NGX_CONF_TAKE1, read_time,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, max_wait), nullptr},

    {ngx_string("penstock_earlier"), kAnywhere | NGX_CONF_TAKE12, read_earlier,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("penstock_busy"), kAnywhere | NGX_CONF_TAKE1, read_busy, NGX_HTTP_LOC_CONF_OFFSET,
     0, nullptr},
    {ngx_string("penstock_waiting_events"), kAnywhere | NGX_CONF_TAKE12, read_waiting_events,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("penstock_origins"), kAnywhere | NGX_CONF_1MORE, read_origins,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    // As in Nginx's other upstream modules. Those that aren't here would do nothing: penstockd is
    // on this machine (bind, socket_keepalive), needs a body whole, as do limits
    // (request_buffering), and sends no header that is hidden unasked (pass_header); limit_rate is
    // the location's own.
    {ngx_string("penstock_connect_timeout"), kAnywhere | NGX_CONF_TAKE1, read_time,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(connect_timeout), nullptr},
    {ngx_string("penstock_send_timeout"), kAnywhere | NGX_CONF_TAKE1, read_time,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(send_timeout), nullptr},
    {ngx_string("penstock_read_timeout"), kAnywhere | NGX_CONF_TAKE1, read_time,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(read_timeout), nullptr},
    {ngx_string("penstock_next_upstream"), kAnywhere | NGX_CONF_1MORE, ngx_conf_set_bitmask_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(next_upstream), &next_upstream_words},
    {ngx_string("penstock_next_upstream_tries"), kAnywhere | NGX_CONF_TAKE1, ngx_conf_set_num_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(next_upstream_tries), nullptr},
    {ngx_string("penstock_next_upstream_timeout"), kAnywhere | NGX_CONF_TAKE1, read_time,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(next_upstream_timeout), nullptr},
    {ngx_string("penstock_buffering"), kAnywhere | NGX_CONF_FLAG, ngx_conf_set_flag_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(buffering), nullptr},
    {ngx_string("penstock_buffer_size"), kAnywhere | NGX_CONF_TAKE1, read_size,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(buffer_size), nullptr},
    {ngx_string("penstock_buffers"), kAnywhere | NGX_CONF_TAKE2, ngx_conf_set_bufs_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(bufs), nullptr},
    {ngx_string("penstock_busy_buffers_size"), kAnywhere | NGX_CONF_TAKE1, read_size,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(busy_buffers_size_conf), nullptr},
    {ngx_string("penstock_max_temp_file_size"), kAnywhere | NGX_CONF_TAKE1, read_size,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(max_temp_file_size_conf), nullptr},
    {ngx_string("penstock_temp_file_write_size"), kAnywhere | NGX_CONF_TAKE1, read_size,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(temp_file_write_size_conf), nullptr},
    {ngx_string("penstock_temp_path"), kAnywhere | NGX_CONF_TAKE1234, ngx_conf_set_path_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(temp_path), nullptr},
    {ngx_string("penstock_hide_header"), kAnywhere | NGX_CONF_TAKE1, ngx_conf_set_str_array_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(hide_headers), nullptr},
    {ngx_string("penstock_ignore_client_abort"), kAnywhere | NGX_CONF_FLAG, ngx_conf_set_flag_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(ignore_client_abort), nullptr},
    {ngx_string("penstock_intercept_errors"), kAnywhere | NGX_CONF_FLAG, ngx_conf_set_flag_slot,
     NGX_HTTP_LOC_CONF_OFFSET, PENSTOCK_UPSTREAM(intercept_errors), nullptr},
    ngx_null_command,
};

#undef PENSTOCK_UPSTREAM

ngx_http_module_t context = {
    preconfiguration, postconfiguration, create_main_conf, nullptr,
    nullptr,          nullptr,           create_loc_conf,  merge_loc_conf,
};

}  // namespace
}  // namespace penstock

extern "C" {

ngx_module_t ngx_http_penstock_module = {
    NGX_MODULE_V1,
    &penstock::context,
    penstock::commands,
    NGX_HTTP_MODULE,
    nullptr,                 // init master
    penstock::commit,        // init module
    penstock::start_worker,  // init process
    nullptr,                 // init thread
    nullptr,                 // exit thread
    penstock::stop_worker,   // exit process
    penstock::close_stores,  // exit master
    NGX_MODULE_V1_PADDING,
};
}
