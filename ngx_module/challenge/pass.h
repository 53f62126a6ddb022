// Passes of a request: it brings them as the header Penstock-Pass or as a cookie, and is given one
// for a challenge that it has solved. Of several, for several limits, each stands behind the last,
// with "~" between.
#pragma once

#include "ngx_module/conf/conf.h"
#include "shared/challenge/pass.h"
#include "shared/challenge/solution.h"

namespace penstock {

// The name by which a limit's challenges and passes know it.
std::string_view challenge_name(const Limit& limit) noexcept;

// Whom the limit counts; empty: nobody, or memory ran out.
std::string_view caller_of(ngx_http_request_t* r, const Limit& limit) noexcept;

// For whom a challenge by this limit would be, or a pass is, under these keys of its zone.
challenge::Holder holder_of(const Limit& limit, const challenge::Keys& keys,
                            std::string_view who) noexcept;

// The keys of the limit's zone by which the holder is one of the limit; nullptr: none of them.
const challenge::Keys* keys_of(const Limit& limit, const challenge::Holder& holder) noexcept;

// Whether the request brings a pass of this caller, no older than pass= has it here.
bool has_pass(const ngx_http_request_t* r, const Limit& limit, std::string_view who) noexcept;

// What came of the answer to a challenge. kAsked: a provider is being asked about it. kBusy: it
// could not be, as too much is asked.
enum class Answered : uint8_t { kWrong, kRight, kNoRoom, kAsked, kBusy };

// Each answer is good once: its id is a key of its own in the zone, until it would have ended
// anyway. No holder has more than 60 of them, so none fills the zone, or makes it harder for all.
limit::Outcome spend(Zone& zone, const challenge::Holder& holder, std::string_view id) noexcept;

// The request's answer bears the new pass, and those that came with the request and are for others
// or for other limits, as a header and a cookie. False when memory ran out.
bool give_pass(ngx_http_request_t* r, const challenge::Keys& keys,
               const challenge::Pass& pass) noexcept;

// Takes an answer for the holder: if it is right it is spent by that, and the request's answer
// bears the pass, as a header and a cookie. kNoRoom: the zone is full, so nothing was taken.
Answered take_answer(ngx_http_request_t* r, const Limit& limit, const challenge::Keys& keys,
                     const challenge::Holder& holder, const challenge::Solution& solution) noexcept;

}  // namespace penstock
