// A line of the error log, at penstock_log_level, for each order to a console that Nginx itself
// carries out or refuses. What it hands on to penstockd is in penstockd's log.
//
//     order by="alice at 192.0.2.7" deed=reset object="/limits?zone=edge" key=9f3a5c0b7d1e2f48
//       outcome=done status=200
#pragma once

#include <string_view>

#include "ngx_module/nginx.h"

namespace penstock {

struct ConsoleOrder {
  std::string_view deed;  // "reset"
  std::string_view path;  // behind the console's own
  uint64_t key = 0;       // its hash, as the answer shows it; 0: none is known
  ngx_uint_t status = 0;  // of the answer
};

// Of those that are refused at most five a second are written.
void log_order(ngx_http_request_t* r, const ConsoleOrder& order) noexcept;

}  // namespace penstock
