#include "ngx_module/admit/delay.h"

#include "ngx_module/request/suspend.h"
#include "shared/base/clock.h"

namespace penstock {
namespace {

constexpr ngx_int_t kMaxDelayed = 1000;  // unless penstock_max_delayed says otherwise

// By how much Nginx's own time, by which timers run, is behind: by all that this turn of its loop
// has done so far. Without it a request would go on that much too early.
ngx_msec_t behind_ms() noexcept {
  constexpr ngx_msec_t kImpossible = 60'000;  // another clock, on some system
  const ngx_msec_t behind = static_cast<ngx_msec_t>(monotonic_ns() / kNsPerMs) - ngx_current_msec;
  return behind < kImpossible ? behind : 0;
}

void on_delay_timer(ngx_http_request_t* r) noexcept {
  if (r->connection->write->delayed != 0) {
    return stay_suspended(r);
  }
  if (RequestState* state = find_state(r); state != nullptr && state->delayed) {
    state->delayed = false;
    --state->receipt.main->process->delayed;
  }
  resume_phases(r);
}

}  // namespace

bool may_delay(const MainConf& main) noexcept {
  const ngx_int_t most = main.max_delayed == NGX_CONF_UNSET ? kMaxDelayed : main.max_delayed;
  return main.process->delayed < static_cast<ngx_uint_t>(most);
}

ngx_int_t delay_request(ngx_http_request_t* r, RequestState& state, int64_t delay_ns) noexcept {
  if (!suspend_phases(r, on_delay_timer)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  state.delayed = true;
  ++state.receipt.main->process->delayed;
  r->connection->write->delayed = 1;
  ngx_add_timer(r->connection->write,
                static_cast<ngx_msec_t>((delay_ns + kNsPerMs - 1) / kNsPerMs) + behind_ms());
  return NGX_AGAIN;
}

}  // namespace penstock
