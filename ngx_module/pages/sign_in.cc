#include "ngx_module/pages/sign_in.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/keys/known_key.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/session.h"
#include "shared/challenge/pass.h"

namespace penstock {
namespace {

void tell(Page& page, std::string_view name, std::string_view value) noexcept {
  page.raw("\"").raw(name).raw("\":");
  if (value.empty()) {
    page.raw("null");
  } else {
    page.raw("\"").escaped(value).raw("\"");
  }
}

ngx_int_t tell_who(ngx_http_request_t* r, const KnownKey& key) noexcept {
  const bool known = key.state == KeyState::kKnown;
  Page page(r);
  page.raw("{");
  tell(page, "owner", key.owner);
  page.raw(",");
  tell(page, "tier", key.tier);
  page.raw(",");
  tell(page, "key", known ? std::string_view(key.id.data(), key.id.size()) : std::string_view{});
  page.raw("}\n");
  return page.send();
}

ngx_int_t answer(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc =
          check_method(r, NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_POST | NGX_HTTP_DELETE,
                       "GET, HEAD, POST, DELETE");
      rc != NGX_DECLINED) {
    return rc;
  }
  if (ngx_http_discard_request_body(r) != NGX_OK) {
    r->keepalive = 0;
  }
  const KnownKey* const key = known_key(r);
  if (key == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) != 0) {
    return tell_who(r, *key);
  }
  if (!is_from_here(r)) {
    return refuse_page(r, {.status = 403,
                           .detail = "A page of another site may not sign anybody in or out.",
                           .code = "forbidden"});
  }
  if (r->method == NGX_HTTP_DELETE) {
    return sign_out(r) ? tell_who(r, KnownKey{}) : NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (key->state != KeyState::kKnown || key->by_cookie) {
    return refuse_page(r, {.status = 401,
                           .detail = "This key is not known: it was never issued, was revoked, or "
                                     "has ended.",
                           .code = "invalid_api_key"});
  }
  return sign_in(r, *key, loc_conf(r)->sign_in_s) ? tell_who(r, *key)
                                                  : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

}  // namespace

char* read_sign_in(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  MainConf& main = *main_conf(cf);
  if (main.keys == nullptr) {
    return refuse(cf, "penstock_sign_in needs penstock_keys FILE; above it, in http { ... }");
  }
  Zone* zone = nullptr;
  ngx_int_t seconds = 12 * 3600;
  for (size_t i = 1; i < cf->args->nelts; ++i) {
    std::string_view value;
    if (option(view(arg(cf, i)), "zone", value)) {
      zone = find_named(main.zones, value);
    } else if (option(view(arg(cf, i)), "for", value)) {
      ngx_str_t time = str(value);
      seconds = ngx_parse_time(&time, 1);
    } else {
      return refuse(cf,
                    "unknown parameter \"%V\" of penstock_sign_in; it takes zone=NAME and for=TIME",
                    &arg(cf, i));
    }
  }
  if (zone == nullptr || (main.sign_in_zone != nullptr && main.sign_in_zone != zone)) {
    return refuse(cf,
                  "penstock_sign_in needs zone=NAME of a penstock_zone above it, whose secret "
                  "signs the cookie, and everywhere the same one");
  }
  if (seconds < 60 || seconds > challenge::kLongestPassSeconds) {
    return refuse(cf, "penstock_sign_in: for= is how long a browser stays signed in, 1m to 7d");
  }
  const ngx_http_core_loc_conf_t* core = core_conf(cf);
  if (!core->exact_match && !is_prefix_location(*core)) {
    return refuse(cf, "penstock_sign_in stands in a location such as location = /session { ... }");
  }
  main.sign_in_zone = zone;
  zone->signs_in = true;
  loc.sign_in_s = seconds;
  loc.sign_in_path = core->name;
  loc.server = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
  return main.sign_ins.push(cf->pool, &loc) == nullptr ? kConfError : set_page(cf, loc, answer);
}

}  // namespace penstock
