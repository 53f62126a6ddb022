#include "ngx_module/directives/zone_directive.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/directives/redis_options.h"
#include "ngx_module/zone/zone.h"
#include "shared/base/secret_file.h"

namespace penstock {
namespace {

// What challenges and passes are signed by.
char* read_secret(ngx_conf_t* cf, std::string_view path, ngx_str_t& secret) noexcept {
  constexpr size_t kLeast = 32;
  constexpr size_t kMost = 4096;
  ngx_str_t full = copy(cf->pool, path);
  if (full.data == nullptr || ngx_conf_full_name(cf->cycle, &full, 1) != NGX_OK) {
    return kConfError;
  }
  auto file = read_secret_file(std::string(view(full)), kMost);
  if (!file) {
    ngx_str_t why = str(file.error().message);
    return refuse(cf, "secret_file= of penstock_zone: %V", &why);
  }
  if (file->is_too_open()) {
    return refuse(cf, "secret_file=%V can be read by others: chmod 600 it", &full);
  }
  if (file->text.size() < kLeast || file->text.size() > kMost) {
    return refuse(cf,
                  "secret_file=%V must hold %uz random bytes or more: head -c 32 /dev/urandom > %V",
                  &full, kLeast, &full);
  }
  secret = copy(cf->pool, file->text);
  return secret.data == nullptr ? kConfError : NGX_CONF_OK;
}

}  // namespace

char* read_zone(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  ngx_str_t& name = arg(cf, 1);
  if (!is_name(view(name))) {
    return refuse(cf, "invalid zone name \"%V\": %s", &name, kNameRule);
  }
  std::string_view file;
  ngx_str_t secret{};
  Sharing sharing;
  for (size_t i = 3; i < cf->args->nelts; ++i) {
    bool known = false;
    if (read_redis_option(cf, i, sharing, known) != NGX_CONF_OK) {
      return kConfError;
    }
    if (known) {
      continue;
    }
    if (std::string_view path; option(view(arg(cf, i)), "secret_file", path)) {
      if (secret.len > 0) {
        return refuse(cf, "parameter \"%V\" of penstock_zone comes twice", &arg(cf, i));
      }
      if (read_secret(cf, path, secret) != NGX_CONF_OK) {
        return kConfError;
      }
      continue;
    }
    if (!file.empty()) {
      return refuse(cf, "parameter \"%V\" of penstock_zone is one too many: file=PATH comes once",
                    &arg(cf, i));
    }
    if (!option(view(arg(cf, i)), "file", file) || file.empty()) {
      return refuse(
          cf,
          "unknown parameter \"%V\" of penstock_zone; this version takes a name, a size, "
          "file=PATH, secret_file=PATH and redis=HOST:PORT|unix:PATH with sentinel=, db=, user=, "
          "password_file=, prefix=, timeout= and on_error=",
          &arg(cf, i));
    }
  }
  const ssize_t size = ngx_parse_size(&arg(cf, 2));
  constexpr ssize_t kMaxZone = ssize_t{1} << 40;
  if (size == NGX_ERROR || static_cast<size_t>(size) < 8 * ngx_pagesize || size > kMaxZone) {
    return refuse(cf, "invalid size \"%V\" of zone \"%V\": give %uzk or more; 1m holds 32000 keys",
                  &arg(cf, 2), &name, 8 * ngx_pagesize / 1024);
  }
  if (find_named(main.zones, view(name)) != nullptr) {
    return refuse(cf, "zone \"%V\" is defined twice", &name);
  }
  auto* zone = make<Zone>(cf->pool);
  if (zone == nullptr || main.zones.push(cf->pool, zone) == nullptr) {
    return kConfError;
  }
  zone->name = name;
  zone->secret = secret;
  zone->conf_file = cf->conf_file->file.name;
  zone->conf_line = cf->conf_file->line;
  if (!file.empty()) {
    zone->file = copy(cf->pool, file);
    if (zone->file.data == nullptr || ngx_conf_full_name(cf->cycle, &zone->file, 0) != NGX_OK) {
      return kConfError;
    }
  }
  zone->shm =
      ngx_shared_memory_add(cf, &name, static_cast<size_t>(size), &ngx_http_penstock_module);
  if (zone->shm == nullptr) {
    return kConfError;
  }
  if (zone->shm->data != nullptr) {
    return refuse(cf, "zone \"%V\" is defined twice", &name);
  }
  zone->shm->data = zone;
  zone->shm->init = init_zone;
  return share_zone(cf, sharing, *zone);
}

}  // namespace penstock
