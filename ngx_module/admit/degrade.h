// Degrade: a request over a limit runs all the same, as a lesser one.
//
//   penstock_limit ... action=degrade degrade_to=model=small;         another model
//   penstock_limit ... action=degrade degrade_to=max_tokens=64;       another value of a field
//   penstock_limit ... action=degrade degrade_to=earlier;             what was answered before
//
// The limit that it was over is not charged. The request is judged anew as what it has become, so
// limits that count by model count the model that runs. The answer says so:
//   Penstock-Degraded: "free-rate";model="small"
//
// Whether there is an earlier answer only penstockd knows. So what the limit decided is held until
// then, and is told if there is none.
#pragma once

#include "ngx_module/admit/charges.h"

namespace penstock {

// Whether every limit that refused says degrade, and can: there is a body for penstock_pass to hand
// over. REQUIRES: some limit has refused.
bool may_degrade(ngx_http_request_t* r, const RequestState& state,
                 std::span<const ChargeResult> results) noexcept;

// Whether that hangs on the model that the body names, which is still to come.
bool hangs_on_model(ngx_http_request_t* r, RequestState& state,
                    std::span<const ChargeResult> results) noexcept;

// Makes the lesser request; false if it may not be degraded, or memory ran out.
bool degrade(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept;

// Whether the answer of an earlier request may do for this one, if there is any.
bool may_be_earlier(ngx_http_request_t* r) noexcept;
// There was one: says so, and counts it. False when memory ran out.
bool note_earlier(ngx_http_request_t* r, RequestState& state) noexcept;

// Adds the header, for what one stage degraded. False when memory ran out.
bool push_degraded(ngx_http_request_t* r, RequestState& state, const LocConf& loc,
                   Stage stage) noexcept;

}  // namespace penstock
