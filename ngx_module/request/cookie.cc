#include "ngx_module/request/cookie.h"

#include "ngx_module/conf/text.h"

namespace penstock {

std::string_view name_of(const ngx_http_request_t* r, const Cookie& cookie) noexcept {
  constexpr std::string_view kHost = "__Host-";
  return is_secure(r) ? cookie.host_name : cookie.host_name.substr(kHost.size());
}

bool set_cookie(ngx_http_request_t* r, const Cookie& cookie, std::string_view value,
                uint64_t seconds) noexcept {
  constexpr std::string_view kAge = "; Path=/; Max-Age=";
  constexpr std::string_view kHidden = "; HttpOnly; SameSite=";
  const std::string_view secure = is_secure(r) ? "; Secure" : "";
  const std::string_view name = name_of(r, cookie);
  auto* memory = static_cast<char*>(
      ngx_pnalloc(r->pool, name.size() + 1 + value.size() + kAge.size() + Text::kMaxDigits +
                               kHidden.size() + cookie.same_site.size() + secure.size()));
  if (memory == nullptr) {
    return false;
  }
  Text text = Text(memory).raw(name).raw("=").raw(value).raw(kAge).number(seconds);
  text.raw(kHidden).raw(cookie.same_site).raw(secure);
  return push_header(r, "Set-Cookie", str({memory, static_cast<size_t>(text.at() - memory)})) !=
         nullptr;
}

}  // namespace penstock
