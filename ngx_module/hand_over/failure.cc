#include "ngx_module/hand_over/failure.h"

#include "ngx_module/conf/text.h"

namespace penstock {

ngx_int_t invalid(ngx_http_request_t* r, const char* why) noexcept {
  ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd sent an invalid frame: %s", why);
  return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}

const char* parse_failed(std::string_view payload, wire::Failed& failed) noexcept {
  if (const char* error = wire::parse(payload, failed); error != nullptr) {
    return error;
  }
  return failed.status < 400 || failed.status > kLastStatus || failed.retry_after_s > 31'536'000
             ? "status or retry_after_s is impossible"
             : nullptr;
}

http::Problem problem_of(const wire::Failed& failed) noexcept {
  return {.status = static_cast<int>(failed.status),
          .detail = failed.message,
          .code = failed.code,
          .param = failed.param,
          .retry_after_s = static_cast<int64_t>(failed.retry_after_s)};
}

bool log_goodbye(ngx_http_request_t* r, std::string_view payload) noexcept {
  wire::Goodbye goodbye;
  if (const char* error = wire::parse(payload, goodbye); error != nullptr) {
    invalid(r, error);
    return false;
  }
  const ngx_str_t message = one_line(r->pool, goodbye.message);
  ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd says goodbye: %V", &message);
  return true;
}

}  // namespace penstock
