// What penstockd sends in place of an answer, or in the middle of one: FAILED, GOODBYE, and frames
// that break the protocol.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/http/problem.h"
#include "shared/wire/messages.h"

namespace penstock {

constexpr uint64_t kLastStatus = 599;

// Notes in the error log that a frame is invalid; for process_header to return.
ngx_int_t invalid(ngx_http_request_t* r, const char* why) noexcept;

// nullptr, or which rule the payload breaks.
const char* parse_failed(std::string_view payload, wire::Failed& failed) noexcept;
http::Problem problem_of(const wire::Failed& failed) noexcept;

// Notes in the error log what GOODBYE says. False: it is no such frame.
bool log_goodbye(ngx_http_request_t* r, std::string_view payload) noexcept;

}  // namespace penstock
