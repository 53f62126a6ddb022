#include "ngx_module/directives/pass_directives.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/hand_over/jobs.h"
#include "ngx_module/hand_over/pass.h"
#include "shared/wire/status_page.h"

namespace penstock {
namespace {

// The upstream that the directive at hand names.
char* take_upstream(ngx_conf_t* cf, LocConf& loc) noexcept {
  if (loc.upstream.upstream != nullptr) {
    return const_cast<char*>(loc.asks == (view(arg(cf, 0)) == "penstock_jobs")
                                 ? "is duplicate"
                                 : "stands beside another that hands over; give it a location of "
                                   "its own");
  }
  if (core_conf(cf)->handler != nullptr) {
    return refuse(cf,
                  "\"%V\" stands where another directive answers already; give it a location of "
                  "its own",
                  &arg(cf, 0));
  }
  if (view(arg(cf, 1)).find('$') != std::string_view::npos) {
    return refuse(cf, "%V takes the name of an upstream or unix:PATH, without variables",
                  &arg(cf, 0));
  }
  loc.upstream.upstream = upstream_named(cf, 1);
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
  ngx_http_core_loc_conf_t* core = core_conf(cf);
  core->handler = pass_request;
  if (core->name.len > 0 && core->name.data[core->name.len - 1] == '/') {
    core->auto_redirect = 1;
  }
  return main_conf(cf)->passes.push(cf->pool, &loc) == nullptr ? kConfError : NGX_CONF_OK;
}

char* read_jobs(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  ngx_http_core_loc_conf_t* core = core_conf(cf);
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

char* read_earlier(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  if (loc.earlier != NGX_CONF_UNSET_UINT) {
    return const_cast<char*>("is duplicate");
  }
  const std::string_view word = view(arg(cf, 1));
  std::string_view age;
  ngx_int_t seconds = 0;
  bool good = word == "own" || word == "shared" || word == "off";
  if (good && cf->args->nelts == 3) {
    good = word != "off" && option(view(arg(cf, 2)), "max_age", age);
    ngx_str_t text = str(age);
    seconds = good && !age.empty() ? ngx_parse_time(&text, 1) : NGX_ERROR;
    good = seconds != NGX_ERROR && seconds > 0;
  }
  if (!good) {
    return refuse(
        cf,
        "penstock_earlier takes own, shared or off, and after the first two max_age=TIME, "
        "at least a second, such as max_age=24h");
  }
  loc.earlier = static_cast<ngx_uint_t>(word == "own"      ? wire::Earlier::kOwn
                                        : word == "shared" ? wire::Earlier::kShared
                                                           : wire::Earlier::kNone);
  loc.earlier_age_s = static_cast<uint64_t>(seconds);
  return NGX_CONF_OK;
}

char* read_busy(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  const std::string_view word = view(arg(cf, 1));
  if (loc.earlier_if_busy != NGX_CONF_UNSET) {
    return const_cast<char*>("is duplicate");
  }
  if (word != "earlier" && word != "refuse") {
    return refuse(
        cf, "penstock_busy takes earlier, for an answer that was kept, or refuse (the default)");
  }
  loc.earlier_if_busy = word == "earlier" ? 1 : 0;
  return NGX_CONF_OK;
}

char* read_waiting_events(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  constexpr ngx_int_t kLeastMs = 100;
  if (loc.waiting_events != NGX_CONF_UNSET_MSEC) {
    return const_cast<char*>("is duplicate");
  }
  const bool more = cf->args->nelts == 3;
  if (view(arg(cf, 1)) == "off" && !more) {
    loc.waiting_events = 0;
    return NGX_CONF_OK;
  }
  const ngx_int_t ms = ngx_parse_time(&arg(cf, 1), 0);
  if (ms == NGX_ERROR || ms < kLeastMs || (more && view(arg(cf, 2)) != "as=event")) {
    return refuse(cf,
                  "penstock_waiting_events takes off, or a time of at least 100ms such as 5s, then "
                  "as=event");
  }
  loc.waiting_events = static_cast<ngx_msec_t>(ms);
  loc.waiting_as_events = more;
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

}  // namespace penstock
