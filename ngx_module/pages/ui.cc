#include "ngx_module/pages/ui.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/conf/directive.h"
#include "ngx_module/reply/page_policy.h"
#include "ngx_module/request/headers.h"
#include "ngx_module/request/session.h"

namespace penstock {
namespace {

struct Type {
  std::string_view extension, type;
};

// A type that is wrong is no script for a browser that does not guess, and `types` may lack any.
constexpr Type kTypes[] = {
    {"html", "text/html"},    {"js", "text/javascript"},
    {"css", "text/css"},      {"json", "application/json"},
    {"svg", "image/svg+xml"}, {"png", "image/png"},
    {"ico", "image/x-icon"},  {"webmanifest", "application/manifest+json"},
};

void set_type(ngx_http_request_t* r) noexcept {
  const std::string_view uri = view(r->uri);
  const std::string_view extension = uri.substr(uri.rfind('.') + 1);
  for (const Type& type : kTypes) {
    if (extension == type.extension) {
      r->headers_out.content_type = str(type.type);
      r->headers_out.content_type_len = type.type.size();
      if (type.type.starts_with("text/")) {
        ngx_str_set(&r->headers_out.charset, "utf-8");
      }
      return;
    }
  }
}

// Nginx's own modules go on from here: index, and what serves files.
ngx_int_t begin_file(ngx_http_request_t* r) noexcept {
  if (r->uri.data[r->uri.len - 1] == '/') {
    return NGX_DECLINED;  // comes again as its index
  }
  if (!prepare_file(r) || (view(r->uri).ends_with(".html") && !renew_session(r))) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  return NGX_DECLINED;
}

}  // namespace

bool prepare_file(ngx_http_request_t* r) noexcept {
  set_type(r);
  return push_page_policy(r) && push_header(r, "Cache-Control", str("no-cache")) != nullptr;
}

// Doubtful, not wrong: it may be put there before it is asked for.
void look_for_page(ngx_conf_t* cf, const ngx_str_t& root) noexcept {
  char index[NGX_MAX_PATH];
  if (root.len + sizeof "/index.html" > sizeof index) {
    return;
  }
  u_char* const end = ngx_sprintf(reinterpret_cast<u_char*>(index), "%V", &root);
  ngx_file_info_t info;
  *end = '\0';
  const bool folder = ngx_file_info(index, &info) == 0 && ngx_is_dir(&info);
  ngx_memcpy(end, "/index.html", sizeof "/index.html");
  if (!folder || ngx_file_info(index, &info) != 0) {
    ngx_str_t where = root;
    warn_at(cf, cf->conf_file->file.name, cf->conf_file->line,
            "penstock_ui: %s \"%V\", so the page is not found; make install puts it there, or name "
            "its folder as root=PATH",
            folder ? "there is no index.html in" : "there is no folder", &where);
  }
}

char* read_ui(ngx_conf_t* cf, ngx_command_t*, void*) noexcept {
  ngx_http_core_loc_conf_t* core = core_conf(cf);
  if (core->handler != nullptr) {
    return refuse(cf,
                  "\"penstock_ui\" stands where another directive answers already; give it a "
                  "location of its own");
  }
  if (core->root.data != nullptr) {
    return refuse(cf, "penstock_ui takes its folder as root=PATH; no root or alias stands beside");
  }
  if (view(arg(cf, 1)).find('=') != std::string_view::npos) {
    return refuse(cf,
                  "penstock_ui needs its upstream before \"%V\": penstock_ui UPSTREAM [root=PATH]",
                  &arg(cf, 1));
  }
  std::string_view folder = kPageRoot;
  if (cf->args->nelts == 3 && (!option(view(arg(cf, 2)), "root", folder) || folder.empty() ||
                               folder.find('$') != std::string_view::npos)) {
    return refuse(cf,
                  "unknown parameter \"%V\" of penstock_ui; it takes root=PATH, without variables",
                  &arg(cf, 2));
  }
  ngx_str_t root = copy(cf->pool, folder);
  if (root.data == nullptr || ngx_conf_full_name(cf->cycle, &root, 0) != NGX_OK) {
    return kConfError;
  }
  look_for_page(cf, root);
  core->root = root;
  core->handler = begin_file;
  return NGX_CONF_OK;
}

}  // namespace penstock
