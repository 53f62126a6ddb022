#include "ngx_module/directives/zone_directive.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/directives/redis_options.h"
#include "ngx_module/zone/zone.h"

namespace penstock {

char* read_zone(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  ngx_str_t& name = arg(cf, 1);
  if (!is_name(view(name))) {
    return refuse(cf, "invalid zone name \"%V\": %s", &name, kNameRule);
  }
  std::string_view file;
  Sharing sharing;
  for (size_t i = 3; i < cf->args->nelts; ++i) {
    bool known = false;
    if (read_redis_option(cf, i, sharing, known) != NGX_CONF_OK) {
      return kConfError;
    }
    if (known) {
      continue;
    }
    if (!file.empty()) {
      return refuse(cf, "parameter \"%V\" of penstock_zone is one too many: file=PATH comes once",
                    &arg(cf, i));
    }
    if (!option(view(arg(cf, i)), "file", file) || file.empty()) {
      return refuse(cf,
                    "unknown parameter \"%V\" of penstock_zone; this version takes a name, a size, "
                    "file=PATH and redis=HOST:PORT|unix:PATH with sentinel=, db=, user=, "
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
