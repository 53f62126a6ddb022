#include "ngx_module/request/who.h"

#include "ngx_module/conf/text.h"

namespace penstock {

bool describe_who(ngx_http_request_t* r, std::string_view& who) noexcept {
  constexpr std::string_view kAt = " at ";
  if (ngx_http_auth_basic_user(r) == NGX_ERROR) {
    return false;
  }
  const std::string_view user = view(r->headers_in.user);
  const std::string_view address = view(r->connection->addr_text);
  auto* begin = static_cast<char*>(ngx_pnalloc(r->pool, user.size() + kAt.size() + address.size()));
  if (begin == nullptr) {
    return false;
  }
  Text text(begin);
  if (!user.empty()) {
    text.raw(user).raw(kAt);
  }
  text.raw(address);
  who = {begin, static_cast<size_t>(text.at() - begin)};
  return true;
}

}  // namespace penstock
