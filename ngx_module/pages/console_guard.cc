#include "ngx_module/pages/console_guard.h"

#include <arpa/inet.h>

#include "ngx_module/conf/text.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/headers.h"
#include "ngx_module/request/session.h"
#include "shared/limit/siphash.h"

namespace penstock {
namespace {

constexpr time_t kHour = 3600;
constexpr size_t kTokenBytes = 32;

struct Token {
  char text[kTokenBytes];
};

// One that nobody can make without the secret, for the user in the hour.
bool token_of(ngx_http_request_t* r, time_t hour, Token& token) noexcept {
  if (ngx_http_auth_basic_user(r) == NGX_ERROR) {
    return false;
  }
  const std::string_view user = view(r->headers_in.user);
  auto* text = static_cast<char*>(ngx_pnalloc(r->pool, user.size() + Text::kMaxDigits + 1));
  if (text == nullptr) {
    return false;
  }
  const char* const end =
      Text(text).number(static_cast<uint64_t>(hour)).literal(" ").raw(user).at();
  limit::SipState<2, 4> state(loc_conf(r)->console->secret);
  const limit::Hash128 hash = state.hash128(text, static_cast<size_t>(end - text));
  u_char bytes[sizeof hash];
  ngx_memcpy(bytes, &hash, sizeof hash);
  ngx_hex_dump(reinterpret_cast<u_char*>(token.text), bytes, sizeof bytes);
  return true;
}

// In a time that tells nothing of where they differ.
bool same(const Token& token, std::string_view said) noexcept {
  unsigned differ = said.size() == kTokenBytes ? 0 : 1;
  for (size_t i = 0; i < kTokenBytes && i < said.size(); ++i) {
    differ |= static_cast<unsigned char>(token.text[i]) ^ static_cast<unsigned char>(said[i]);
  }
  return differ == 0;
}

// Of this hour or the one before.
bool has_token(ngx_http_request_t* r) noexcept {
  const std::string_view said = find_header(r, "penstock-order");
  Token token;
  for (const time_t hour : {ngx_time() / kHour, ngx_time() / kHour - 1}) {
    if (token_of(r, hour, token) && same(token, said)) {
      return true;
    }
  }
  return false;
}

bool is_address(std::string_view host) noexcept {
  char text[INET6_ADDRSTRLEN + 2] = {};
  char bytes[sizeof(in6_addr)];
  const bool brackets = host.starts_with('[') && host.ends_with(']');
  host = brackets ? host.substr(1, host.size() - 2) : host;
  if (host.size() >= sizeof text) {
    return false;
  }
  host.copy(text, sizeof text - 1);
  return inet_pton(brackets ? AF_INET6 : AF_INET, text, bytes) == 1;
}

// "*.example.com" and ".example.com" as server_name has them.
bool fits(std::string_view name, std::string_view host) noexcept {
  if (name.starts_with('.') && name.substr(1) == host) {
    return true;
  }
  const std::string_view end = name.substr(name.starts_with('*') ? 1 : 0);
  return end.starts_with('.') ? host.size() > end.size() && host.ends_with(end) : name == host;
}

// A page of another name can be made to come from here, but not one of an address.
bool is_our_name(const ngx_http_request_t* r) noexcept {
  const std::string_view host = view(r->headers_in.server);
  const PoolArray<ngx_str_t>& names = loc_conf(r)->console->hosts;
  return is_address(host) || host == "localhost" ||
         std::any_of(names.begin(), names.end(),
                     [&](const ngx_str_t& name) noexcept { return fits(view(name), host); });
}

bool is_program(const ngx_http_request_t* r) noexcept {
  return find_header(r, "origin").empty() && find_header(r, "sec-fetch-site").empty();
}

ngx_int_t forbid(ngx_http_request_t* r, std::string_view detail) noexcept {
  return refuse_page(r, {.status = 403, .detail = detail, .code = "forbidden"});
}

}  // namespace

ngx_int_t guard_console(ngx_http_request_t* r, bool order, bool for_programs) noexcept {
  if (order && loc_conf(r)->console->read_only) {
    return forbid(r, "This console takes no orders: it is read_only in nginx.conf.");
  }
  if (!is_our_name(r)) {
    return forbid(r,
                  "The console is asked by an address, as localhost, or by a server_name of its "
                  "server.");
  }
  if (for_programs && is_program(r)) {
    return NGX_DECLINED;
  }
  // The page itself may be come to from a link.
  const bool visit = !order && find_header(r, "sec-fetch-mode") == "navigate";
  if (!visit && !is_from_here(r)) {
    return forbid(r, "A page of another site may not ask this console.");
  }
  if (order && !has_token(r)) {
    return forbid(r, "An order needs the header Penstock-Order with a token of /session.");
  }
  return NGX_DECLINED;
}

ngx_int_t answer_session(ngx_http_request_t* r) noexcept {
  const Console& console = *loc_conf(r)->console;
  Token token;
  if (!token_of(r, ngx_time() / kHour, token)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  Page page(r);
  page.raw(R"({"token":")").raw({token.text, kTokenBytes});
  page.raw(R"(","read_only":)").raw(console.read_only ? "true" : "false");
  page.raw(R"(,"user":")").escaped(view(r->headers_in.user));
  page.raw(R"(","host":")")
      .escaped(view(const_cast<ngx_cycle_t*>(ngx_cycle)->hostname))
      .raw("\"}\n");
  return page.send();
}

}  // namespace penstock
