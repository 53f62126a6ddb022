// penstock_metrics: everything that Prometheus may ask for, in its text format.
//
//   penstock_requests_total{tier,variant,outcome}                     whole requests, at their end
//   penstock_limit_requests_total{zone,tier,variant,limit,outcome}    what each limit said
//   penstock_cost_total{unit,event}                                   tokens, gpu_seconds
//   penstock_decision_seconds                                         histogram
//   penstock_zone_slots{zone,state}                                   live, idle, pending, empty
//   penstock_zone_bytes{zone}
//   penstock_zone_evictions_total{zone}                               idle keys given up for others
//   penstock_zone_full_total{zone}                                    keys that found no slot
//
// and, with the name of an upstream, what its penstockds say of themselves:
//
//   penstock_up{socket}                                               1 while it lives
//   penstock_queue_length{socket,queue}                               jobs that wait
//   penstock_queue_running{socket,queue}                              jobs on workers
//   penstock_queue_slots{socket,queue}                                jobs that can run at once
//   penstock_queue_predicted_wait_seconds{socket,queue}
//
// Labels have only values that the configuration names, so the page does not grow with callers.
// Any worker shows what all of them have counted. A zone of more than some 65000 slots (1m) is not
// read whole, so that no other request waits for this one: evenly spread parts stand for the rest.
#pragma once

#include "ngx_module/nginx.h"

namespace penstock {

ngx_int_t show_metrics(ngx_http_request_t* r) noexcept;

// Reads the directive.
char* read_metrics(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

}  // namespace penstock
