// penstock_console: the operator's view of the counters, as JSON, below a location's prefix.
//
//   GET PREFIX                 what there is
//   GET PREFIX/limits          every counter of every zone for one key, named by the header
//                              "Penstock-Key: KEY"; ?zone=NAME: of that zone only
//      {"key":"9f3a5c0b7d1e2f48",
//       "limits":[{"zone":"edge","name":"free-rate","unit":"requests","algorithm":"token_bucket",
//                  "limit":10,"burst":5,"used":3,"remaining":2,"reset_seconds":41,"live":true,
//                  "hash":"51c0a7e9d2b48f36","key_form":"text"}]}
//   DELETE PREFIX/limits       forgets what they count for that key, as if it had never come
//      {"key":"9f3a5c0b7d1e2f48","reset":["free-rate"],"kept":["free-concurrency"]}
//   GET PREFIX/offenders       the keys that are refused most
//      {"offenders":[{"key":"51c0a7e9d2b48f36","limit":"free-rate","refused":1234}]}
//
// A key is what a limit's key= came to, such as a whole Authorization header. It is a credential
// more often than not: it is taken from a header only, as URLs end up in logs, and never said
// again. `key` is its hash under the zone's secret (the first zone told of), `hash` its place in
// the zone under that one limit: an offender is listed by the latter.
//
// `limit` is the number as it was written, and `used` and `remaining` make up the burst, where
// there is one. `live` is false when nothing is counted. A KEY that is an IP address is looked up
// in its binary form too, as $binary_remote_addr has it: "key_form" is "text" or "address". `kept`
// are the requests that run now: what they hold they give back at their end.
//
// Where it names an upstream, penstock_console gpu, it is a page, too (docs/CONSOLE.md):
//
//   GET PREFIX/                the page, for browsers; its files are below PREFIX/ui,
//   PREFIX/console GET PREFIX/session {"token":"…","read_only":false,"orders":true,"user":"alice"}
//   GET PREFIX/metrics         as penstock_metrics
//   anything else              is penstockd's to answer (worker/queue/api/operator_api.h): /status,
//                              /history, /orders, /predictions, /jobs, /dead, /queues/NAME/…,
//                              /workers/NAME/…
//
// Who may look is the location's to say, by allow, deny and auth_basic. penstockd is asked in the
// role of a tool: it answers if `access.operators` names this Nginx's user, who is the kernel's to
// tell.
//
// An order (what is not GET or HEAD) must come from a page of this host and bring the header
// Penstock-Order with the token of PREFIX/session, which is made for its user and for an hour. So a
// page of another site that an operator's browser has open gives none: for a header of its own the
// browser would ask by OPTIONS first, and is not allowed to; nor can it read the token. A name that
// was pointed at this host to make its pages seem to be ours (DNS rebinding) is refused: a Host is
// an address, localhost or a name of the server. DELETE PREFIX/limits needs no token of a program,
// which says neither Origin nor Sec-Fetch-Site.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

ngx_int_t tell_operator(ngx_http_request_t* r) noexcept;

// Once all servers' names are known. False when memory ran out.
bool bind_consoles(ngx_conf_t* cf) noexcept;

// Reads the directive: penstock_console [UPSTREAM] [root=PATH] [read_only].
char* read_console(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
