#include "ngx_module/reply/page_policy.h"

#include "ngx_module/request/headers.h"

namespace penstock {
namespace {

struct Header {
  std::string_view name, value;
};
constexpr Header kHeaders[] = {
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "same-origin"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Permissions-Policy", "camera=(), microphone=(), geolocation=(), clipboard-read=()"},
};

}  // namespace

bool push_page_policy(ngx_http_request_t* r, std::string_view policy) noexcept {
  return push_header(r, "Content-Security-Policy", str(policy)) != nullptr &&
         std::all_of(std::begin(kHeaders), std::end(kHeaders), [&](const Header& header) noexcept {
           return push_header(r, header.name, str(header.value)) != nullptr;
         });
}

}  // namespace penstock
