// Directive: how a line of nginx.conf is read, and how `nginx -t` says what is wrong with it.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

char* const kConfError = static_cast<char*>(NGX_CONF_ERROR);

inline ngx_str_t& arg(ngx_conf_t* cf, size_t i) noexcept {
  return static_cast<ngx_str_t*>(cf->args->elts)[i];
}

// NAME=VALUE of a directive's arguments; false if `text` is not about NAME.
inline bool option(std::string_view text, std::string_view name, std::string_view& value) noexcept {
  if (text.size() <= name.size() || text.substr(0, name.size()) != name ||
      text[name.size()] != '=') {
    return false;
  }
  value = text.substr(name.size() + 1);
  return true;
}

// Names go into headers and messages as they are.
constexpr size_t kMaxNameBytes = 64;
bool is_name(std::string_view name) noexcept;
constexpr char kNameRule[] = "a name is 1 to 64 of a-z A-Z 0-9 - _ .";

// Says what is wrong at the line being read, as nginx -t shows it, and fails the directive.
char* refuse(ngx_conf_t* cf, const char* format, ...) noexcept;

// Whether a location says how paths begin, so that other paths lie below it.
bool is_prefix_location(const ngx_http_core_loc_conf_t& core) noexcept;

// Refuses the location that is being merged: another directive has taken an answering one's place.
char* refuse_second_answer(ngx_conf_t* cf) noexcept;

// Refuses an argument that is NAME= and no more.
inline char* check_value(ngx_conf_t* cf, size_t i) noexcept {
  const std::string_view text = view(arg(cf, i));
  return text.empty() || text.find('=') != text.size() - 1
             ? NGX_CONF_OK
             : refuse(cf, "parameter \"%V\" of %V has no value: give it one, or leave it out",
                      &arg(cf, i), &arg(cf, 0));
}

// Like refuse(), for what is found wrong only after everything was read. `file` and `line` tell
// where it stands.
ngx_int_t refuse_at(ngx_conf_t* cf, const ngx_str_t& file, ngx_uint_t line, const char* format,
                    ...) noexcept;
// Says what is doubtful there, and goes on.
void warn_at(ngx_conf_t* cf, const ngx_str_t& file, ngx_uint_t line, const char* format,
             ...) noexcept;

inline ngx_http_core_loc_conf_t* core_conf(ngx_conf_t* cf) noexcept {
  return static_cast<ngx_http_core_loc_conf_t*>(
      ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
}

// As Nginx's own slots for an enum (the words are the command's `post`), a time and a size; what is
// wrong is told with what would be right.
char* read_word(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_time(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* read_size(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

// The upstream that an argument names; its block may come later. nullptr when memory ran out, or if
// it can name none: then the error was told.
ngx_http_upstream_srv_conf_t* upstream_named(ngx_conf_t* cf, size_t i) noexcept;
// Refuses names of upstreams for which no block has come. Call it once all was read.
ngx_int_t check_upstreams(ngx_conf_t* cf) noexcept;

}  // namespace penstock
