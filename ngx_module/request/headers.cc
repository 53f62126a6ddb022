#include "ngx_module/request/headers.h"

#include "shared/http/header_lines.h"

namespace penstock {

std::string_view find_header(const ngx_http_request_t* r, std::string_view lower) noexcept {
  std::string_view found;
  each_of<ngx_table_elt_t>(r->headers_in.headers, [&](const ngx_table_elt_t& header) noexcept {
    const bool same = lower_name(header) == lower;
    found = same ? view(header.value) : found;
    return !same;
  });
  return found;
}

bool find_argument(ngx_http_request_t* r, std::string_view name, std::string_view& value) noexcept {
  ngx_str_t key = str(name);
  ngx_str_t found;
  if (r->args.len == 0 || ngx_http_arg(r, key.data, key.len, &found) != NGX_OK) {
    return false;
  }
  value = view(found);
  return true;
}

bool is_own_origin(const ngx_http_request_t* r, std::string_view origin) noexcept {
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && r->headers_in.host != nullptr &&
         http::same_name(origin.substr(scheme + 3), view(r->headers_in.host->value));
}

std::string_view encoding_of(const ngx_http_request_t* r) noexcept {
  constexpr std::string_view kName = "content-encoding";
  constexpr std::string_view kNone = "identity";
  std::string_view found;
  // Of several lines the first that is not identity.
  each_of<ngx_table_elt_t>(r->headers_in.headers, [&](const ngx_table_elt_t& header) noexcept {
    const ngx_str_t& value = header.value;
    if (lower_name(header) == kName && value.len > 0 &&
        !(value.len == kNone.size() &&
          ngx_strncasecmp(value.data, str(kNone).data, kNone.size()) == 0)) {
      found = view(value);
    }
    return found.empty();
  });
  return found;
}

}  // namespace penstock
