#include "ngx_module/conf/directive.h"

#include <algorithm>
#include <cstdarg>

namespace penstock {

bool is_name(std::string_view name) noexcept {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.';
         });
}

char* refuse(ngx_conf_t* cf, const char* format, ...) noexcept {
  u_char text[NGX_MAX_CONF_ERRSTR];
  va_list args;
  va_start(args, format);
  u_char* end = ngx_vslprintf(text, text + sizeof text, format, args);
  va_end(args);
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%*s", static_cast<size_t>(end - text), text);
  return static_cast<char*>(NGX_CONF_ERROR);
}

namespace {

void say_at(ngx_conf_t* cf, ngx_uint_t level, const ngx_str_t& file, ngx_uint_t line,
            const char* format, va_list args) noexcept {
  u_char text[NGX_MAX_CONF_ERRSTR];
  u_char* end = ngx_vslprintf(text, text + sizeof text, format, args);
  ngx_str_t where = file;
  ngx_log_error(level, cf->log, 0, "%*s in %V:%ui", static_cast<size_t>(end - text), text, &where,
                line);
}

}  // namespace

ngx_int_t refuse_at(ngx_conf_t* cf, const ngx_str_t& file, ngx_uint_t line, const char* format,
                    ...) noexcept {
  va_list args;
  va_start(args, format);
  say_at(cf, NGX_LOG_EMERG, file, line, format, args);
  va_end(args);
  return NGX_ERROR;
}

void warn_at(ngx_conf_t* cf, const ngx_str_t& file, ngx_uint_t line, const char* format,
             ...) noexcept {
  va_list args;
  va_start(args, format);
  say_at(cf, NGX_LOG_WARN, file, line, format, args);
  va_end(args);
}

bool is_prefix_location(const ngx_http_core_loc_conf_t& core) noexcept {
#if (NGX_PCRE)
  if (core.regex != nullptr) {
    return false;
  }
#endif
  return !core.named && !core.exact_match && !core.noname;
}

char* refuse_second_answer(ngx_conf_t* cf) noexcept {
  return refuse(cf,
                "location \"%V\" has two directives that answer; give the one of Penstock a "
                "location of its own",
                &core_conf(cf)->name);
}

char* read_word(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept {
  auto& value = *reinterpret_cast<ngx_uint_t*>(static_cast<char*>(conf) + command->offset);
  if (value != NGX_CONF_UNSET_UINT) {
    return const_cast<char*>("is duplicate");
  }
  u_char list[256];
  u_char* end = list;
  for (auto* word = static_cast<ngx_conf_enum_t*>(command->post); word->name.len > 0; ++word) {
    if (word->name.len == arg(cf, 1).len && ngx_strcasecmp(word->name.data, arg(cf, 1).data) == 0) {
      value = word->value;
      return NGX_CONF_OK;
    }
    const char* const between = end == list ? "" : word[1].name.len > 0 ? ", " : " or ";
    end = ngx_slprintf(end, list + sizeof list, "%s%V", between, &word->name);
  }
  return refuse(cf, "%V takes %*s, not \"%V\"", &arg(cf, 0), static_cast<size_t>(end - list), list,
                &arg(cf, 1));
}

char* read_time(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept {
  return ngx_parse_time(&arg(cf, 1), 0) == NGX_ERROR
             ? refuse(cf, "%V takes a time such as 500ms, 30s or 5m, not \"%V\"", &arg(cf, 0),
                      &arg(cf, 1))
             : ngx_conf_set_msec_slot(cf, command, conf);
}

char* read_size(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept {
  return ngx_parse_size(&arg(cf, 1)) == NGX_ERROR
             ? refuse(cf, "%V takes a size such as 64k or 1m, not \"%V\"", &arg(cf, 0), &arg(cf, 1))
             : ngx_conf_set_size_slot(cf, command, conf);
}

namespace {

// A name that is neither a block's nor has a port would be refused before this module is asked
// again, as a host that lacks its port. So it gets a server that stands for none; a block that
// comes later replaces it.
constexpr char kNoServer[] = "unix:/no/server";

bool stand_in(ngx_conf_t* cf, ngx_http_upstream_srv_conf_t& upstream) noexcept {
  ngx_url_t url;
  ngx_memzero(&url, sizeof url);
  url.url = str(kNoServer);
  upstream.servers = ngx_array_create(cf->pool, 1, sizeof(ngx_http_upstream_server_t));
  auto* const server =
      upstream.servers == nullptr
          ? nullptr
          : static_cast<ngx_http_upstream_server_t*>(ngx_array_push(upstream.servers));
  if (server == nullptr || ngx_parse_url(cf->pool, &url) != NGX_OK) {
    return false;
  }
  ngx_memzero(server, sizeof *server);
  server->name = url.url;
  server->addrs = url.addrs;
  server->naddrs = url.naddrs;
  server->weight = 1;
  server->max_fails = 1;
  return true;
}

bool is_stand_in(const ngx_http_upstream_srv_conf_t& upstream) noexcept {
  return upstream.servers != nullptr && upstream.servers->nelts == 1 &&
         static_cast<ngx_http_upstream_server_t*>(upstream.servers->elts)->name.data ==
             reinterpret_cast<const u_char*>(kNoServer);
}

}  // namespace

ngx_http_upstream_srv_conf_t* upstream_named(ngx_conf_t* cf, size_t i) noexcept {
  ngx_url_t url;
  ngx_memzero(&url, sizeof url);
  url.url = arg(cf, i);
  url.no_resolve = 1;
  ngx_http_upstream_srv_conf_t* const upstream = ngx_http_upstream_add(cf, &url, 0);
  const bool nobodys = upstream != nullptr && upstream->servers == nullptr && upstream->port == 0 &&
                       (upstream->flags & NGX_HTTP_UPSTREAM_CREATE) == 0;
  return nobodys && !stand_in(cf, *upstream) ? nullptr : upstream;
}

ngx_int_t check_upstreams(ngx_conf_t* cf) noexcept {
  const auto* const main = static_cast<ngx_http_upstream_main_conf_t*>(
      ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module));
  auto* const* const upstreams = static_cast<ngx_http_upstream_srv_conf_t**>(main->upstreams.elts);
  for (ngx_uint_t i = 0; i < main->upstreams.nelts; ++i) {
    const ngx_http_upstream_srv_conf_t& each = *upstreams[i];
    if (is_stand_in(each)) {
      const auto* const file = const_cast<u_char*>(each.file_name);
      return refuse_at(cf, {ngx_strlen(file), const_cast<u_char*>(file)}, each.line,
                       "there is no upstream \"%V\": write upstream %V { server "
                       "unix:/run/penstock/penstock.sock; }, or name unix:PATH or HOST:PORT",
                       &each.host, &each.host);
    }
  }
  return NGX_OK;
}

}  // namespace penstock
