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

ngx_http_upstream_srv_conf_t* upstream_named(ngx_conf_t* cf, size_t i) noexcept {
  ngx_url_t url;
  ngx_memzero(&url, sizeof url);
  url.url = arg(cf, i);
  url.no_resolve = 1;
  return ngx_http_upstream_add(cf, &url, 0);
}

}  // namespace penstock
