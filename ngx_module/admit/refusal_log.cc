#include "ngx_module/admit/refusal_log.h"

#include <utility>

namespace penstock {
namespace {

constexpr ngx_uint_t kMostASecond = 10;

// Whether one more may be written in this second; `left_out`: how many could not since the last.
bool may_write(ngx_uint_t& left_out) noexcept {
  static time_t second = 0;
  static ngx_uint_t written = 0;
  static ngx_uint_t passed_over = 0;
  if (std::exchange(second, ngx_time()) != second) {
    written = 0;
  }
  if (written == kMostASecond) {
    ++passed_over;
    return false;
  }
  ++written;
  left_out = std::exchange(passed_over, 0);
  return true;
}

}  // namespace

void log_refusal(ngx_http_request_t* r, const RequestState& state, ngx_uint_t status,
                 std::string_view by) noexcept {
  const ngx_uint_t level = loc_conf(r)->log_level;
  ngx_uint_t left_out = 0;
  if (level == 0 || r->connection->log->log_level < level || !may_write(left_out)) {
    return;
  }
  ngx_str_t limit = str(by);
  ngx_str_t plan = state.tier == nullptr ? str("-") : state.tier->name;
  if (left_out == 0) {
    ngx_log_error(level, r->connection->log, 0,
                  "limiting request: %ui by \"%V\", plan \"%V\", retry after %L s", status, &limit,
                  &plan, state.retry_after_s);
    return;
  }
  ngx_log_error(level, r->connection->log, 0,
                "limiting request: %ui by \"%V\", plan \"%V\", retry after %L s; %ui more were not "
                "logged",
                status, &limit, &plan, state.retry_after_s, left_out);
}

}  // namespace penstock
