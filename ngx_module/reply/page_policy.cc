#include "ngx_module/reply/page_policy.h"

#include "ngx_module/request/headers.h"

namespace penstock {
namespace {

struct Header {
  std::string_view name, value;
};
constexpr Header kHeaders[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src "
     "'self'; worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
     "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types penstock"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "same-origin"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Permissions-Policy", "camera=(), microphone=(), geolocation=(), clipboard-read=()"},
};

}  // namespace

bool push_page_policy(ngx_http_request_t* r) noexcept {
  return std::all_of(std::begin(kHeaders), std::end(kHeaders), [&](const Header& header) noexcept {
    return push_header(r, header.name, str(header.value)) != nullptr;
  });
}

}  // namespace penstock
