#include "ngx_module/pages/console.h"

#include <sys/random.h>

#include <algorithm>

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/directive.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/hand_over/jobs.h"
#include "ngx_module/pages/console_guard.h"
#include "ngx_module/pages/key_counters.h"
#include "ngx_module/pages/metrics.h"
#include "ngx_module/pages/order_log.h"
#include "ngx_module/pages/ui.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/headers.h"

namespace penstock {
namespace {

constexpr ngx_uint_t kReads = NGX_HTTP_GET | NGX_HTTP_HEAD;
constexpr std::string_view kIndex = "/console/index.html";

ngx_int_t answer_index(ngx_http_request_t* r, std::string_view prefix) noexcept {
  Page page(r);
  page.raw(R"({"endpoints":[{"path":")").escaped(prefix);
  page.raw(R"(/limits","methods":["GET","DELETE"],"header":"Penstock-Key"},{"path":")");
  page.escaped(prefix).raw(R"(/offenders","methods":["GET"]}]})").raw("\n");
  return page.send();
}

// "PREFIX/console/index.html", or, where the location's name has no slash at its end, "PREFIX/":
// what the page names lies below that.
ngx_int_t show_page(ngx_http_request_t* r, std::string_view prefix, bool slash) noexcept {
  const std::string_view rest = slash ? kIndex : "/";
  auto* begin = static_cast<char*>(ngx_pnalloc(r->pool, prefix.size() + rest.size()));
  if (begin == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const char* const end = Text(begin).raw(prefix).raw(rest).at();
  ngx_str_t uri = str({begin, static_cast<size_t>(end - begin)});
  if (slash) {
    return ngx_http_internal_redirect(r, &uri, nullptr);
  }
  ngx_http_clear_location(r);
  r->headers_out.location = push_header(r, "Location", uri);
  return r->headers_out.location == nullptr ? NGX_HTTP_INTERNAL_SERVER_ERROR
                                            : NGX_HTTP_MOVED_PERMANENTLY;
}

ngx_int_t answer_root(ngx_http_request_t* r, std::string_view prefix, bool slash) noexcept {
  if (const ngx_int_t rc = check_method(r, kReads, "GET, HEAD"); rc != NGX_DECLINED) {
    return rc;
  }
  if (push_header(r, "Vary", str("Accept")) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const bool page = loc_conf(r)->upstream.upstream != nullptr &&
                    find_header(r, "accept").find("text/html") != std::string_view::npos;
  return page ? show_page(r, prefix, slash) : answer_index(r, prefix);
}

// A file of the page, for Nginx's static module.
ngx_int_t answer_file(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc = check_method(r, kReads, "GET, HEAD"); rc != NGX_DECLINED) {
    return rc;
  }
  return prepare_file(r) ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

bool is_own(std::string_view path) noexcept { return path == "/limits" || path == "/offenders"; }

bool is_below(std::string_view path, std::string_view part) noexcept {
  return path.starts_with(part) && (path.size() == part.size() || path[part.size()] == '/');
}

// Where there is an upstream.
ngx_int_t answer_more(ngx_http_request_t* r, std::string_view path) noexcept {
  if (is_below(path, "/ui") || is_below(path, "/console")) {
    return answer_file(r);
  }
  if (path == "/metrics") {
    return show_metrics(r);
  }
  if (path == "/session") {
    const ngx_int_t rc = check_method(r, kReads, "GET, HEAD");
    return rc == NGX_DECLINED ? answer_session(r) : rc;
  }
  for (const std::string_view part : {"/status", "/history", "/orders", "/predictions", "/jobs",
                                      "/dead", "/queues", "/workers"}) {
    if (is_below(path, part)) {
      return ask_as_operator(r);
    }
  }
  return NGX_DECLINED;
}

// One that is not told of by Nginx alone has a page.
ngx_int_t refuse_unknown(ngx_http_request_t* r) noexcept {
  return refuse_page(
      r, {.status = 404,
          .detail = loc_conf(r)->upstream.upstream == nullptr
                        ? "The console has limits and offenders, and nothing else."
                        : "The console has limits, offenders, session, metrics, status, history, "
                          "orders, predictions, jobs, dead, queues and workers, and nothing else.",
          .code = "not_found"});
}

}  // namespace

ngx_int_t tell_operator(ngx_http_request_t* r) noexcept {
  const std::string_view prefix = view(loc_conf(r)->console->prefix);
  std::string_view path = view(r->uri);
  path.remove_prefix(std::min(path.size(), prefix.size()));
  std::string_view key;
  if (find_argument(r, "key", key)) {
    return refuse_page(r, {.status = 400,
                           .detail = "A key does not belong in a URL, which ends up in logs: send "
                                     "it as the header Penstock-Key.",
                           .code = "invalid_request"});
  }
  const bool root = path.empty() || path == "/";
  if (!root && !is_own(path) && loc_conf(r)->upstream.upstream == nullptr) {
    return refuse_unknown(r);
  }
  const bool order = (r->method & kReads) == 0;
  if (const ngx_int_t rc = guard_console(r, order, root || is_own(path)); rc != NGX_DECLINED) {
    if (order) {
      log_order(r, {.deed = view(r->method_name), .path = path, .status = NGX_HTTP_FORBIDDEN});
    }
    return rc;
  }
  if (root) {
    return answer_root(r, prefix, !path.empty());
  }
  if (path == "/limits") {
    return answer_limits(r);
  }
  if (path == "/offenders") {
    return answer_offenders(r);
  }
  const ngx_int_t rc = answer_more(r, path);
  const bool file = is_below(path, "/ui") || is_below(path, "/console");
  return rc == NGX_DECLINED && !file ? refuse_unknown(r) : rc;
}

bool bind_consoles(ngx_conf_t* cf) noexcept {
  for (LocConf* loc : main_conf(cf)->consoles) {
    const auto& server = *static_cast<const ngx_http_core_srv_conf_t*>(loc->server);
    const auto* names = static_cast<const ngx_http_server_name_t*>(server.server_names.elts);
    for (ngx_uint_t i = 0; i < server.server_names.nelts; ++i) {
      if (loc->console->hosts.push(cf->pool, copy(cf->pool, view(names[i].name))) == nullptr) {
        return false;
      }
    }
  }
  return true;
}

char* read_console(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  ngx_http_core_loc_conf_t& core = *core_conf(cf);
  if (!is_prefix_location(core)) {
    return refuse(cf,
                  "penstock_console needs a location by prefix, such as location /console/: "
                  "what it tells lies below that");
  }
  if (char* const failed = set_page(cf, loc, tell_operator); failed != NGX_CONF_OK) {
    return failed;
  }
  Console* const console = make<Console>(cf->pool);
  if (console == nullptr || getrandom(&console->secret, sizeof console->secret, 0) !=
                                static_cast<ssize_t>(sizeof console->secret)) {
    return kConfError;
  }
  std::string_view folder = kPageRoot;
  for (size_t i = 1; i < cf->args->nelts; ++i) {
    const std::string_view word = view(arg(cf, i));
    if (word == "read_only") {
      console->read_only = true;
    } else if (!option(word, "root", folder)) {
      if (loc.watched != nullptr || word.find('=') != std::string_view::npos) {
        return refuse(cf,
                      "unknown parameter \"%V\" of penstock_console; it takes one upstream, "
                      "root=PATH and read_only",
                      &arg(cf, i));
      }
      loc.watched = loc.upstream.upstream = upstream_named(cf, i);
      if (loc.watched == nullptr) {
        return kConfError;
      }
    }
  }
  if (folder.empty() || folder.find('$') != std::string_view::npos) {
    return refuse(cf, "penstock_console takes root=PATH, without variables");
  }
  if (loc.watched == nullptr && folder.data() != kPageRoot.data()) {
    return refuse(cf,
                  "penstock_console has no page without an upstream, and so no root=: "
                  "penstock_console UPSTREAM [root=PATH] [read_only]");
  }
  const bool slash = core.name.len > 0 && core.name.data[core.name.len - 1] == '/';
  core.auto_redirect = slash ? 1 : 0;
  console->prefix = {core.name.len - (slash ? 1 : 0), core.name.data};
  console->jobs.data = static_cast<u_char*>(ngx_pnalloc(cf->pool, core.name.len + 8));
  ngx_str_t root{folder.size() + 1, static_cast<u_char*>(ngx_pnalloc(cf->pool, folder.size() + 2))};
  if (console->jobs.data == nullptr || root.data == nullptr) {
    return kConfError;
  }
  console->jobs.len = static_cast<size_t>(
      ngx_sprintf(console->jobs.data, "%V/jobs", &console->prefix) - console->jobs.data);
  loc.console = console;
  loc.server = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
  loc.asks = loc.upstream.upstream != nullptr;
  if (!loc.asks || core.root.data != nullptr) {
    return loc.asks ? refuse(cf,
                             "penstock_console takes its folder as root=PATH; no root or alias "
                             "stands beside")
                    : NGX_CONF_OK;
  }
  // Its files are found by what follows the location's name.
  const ngx_str_t given = str(folder);
  root.len =
      static_cast<size_t>(ngx_sprintf(root.data, slash ? "%V/%Z" : "%V%Z", &given) - root.data) - 1;
  if (ngx_conf_full_name(cf->cycle, &root, 0) != NGX_OK) {
    return kConfError;
  }
  core.root = root;
  core.alias = core.name.len;
  return NGX_CONF_OK;
}

}  // namespace penstock
