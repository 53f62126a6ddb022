#include "ngx_module/directives/key_directives.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/keys/issued_keys.h"

namespace penstock {

char* read_keys(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  if (main.keys != nullptr) {
    return const_cast<char*>("is duplicate");
  }
  ngx_str_t path = arg(cf, 1);
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cf->pool, 0);
  if (cleanup == nullptr || ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
    return kConfError;
  }
  main.keys = new IssuedKeys(view(path));
  cleanup->data = main.keys;
  cleanup->handler = [](void* keys) { delete static_cast<IssuedKeys*>(keys); };
  const Status read = main.keys->refresh();
  if (read) {
    return NGX_CONF_OK;
  }
  if (read.error().kind != ErrorKind::kGone) {
    return refuse(cf, "penstock_keys: %s", read.error().message.c_str());
  }
  ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                     "penstock_keys: %s; no key is known until penstockctl keys add makes it",
                     read.error().message.c_str());
  return NGX_CONF_OK;
}

char* read_require_key(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept {
  return main_conf(cf)->keys == nullptr
             ? refuse(cf,
                      "penstock_require_key needs penstock_keys FILE; above it, in http { ... }")
             : ngx_conf_set_flag_slot(cf, command, conf);
}

}  // namespace penstock
