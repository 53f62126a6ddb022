// Sharing: what penstock_zone says of the Redis that its limits are shared by.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/limit/lease.h"

namespace penstock {

struct Facts;

// Of a Redis, a Sentinel, or a node of a cluster.
struct RedisAddress {
  ngx_str_t path{};  // of a Unix socket; empty: TCP
  ngx_str_t ip{};
  ngx_int_t port = 0;
};

struct Sharing {
  PoolArray<RedisAddress> addresses;  // one Redis; several nodes of a cluster; Sentinels
  ngx_str_t sentinel{};               // the master's name, as Sentinels know it
  ngx_str_t text{};                   // what it is, for messages: "Redis at 127.0.0.1:6379"
  ngx_int_t database = 0;
  ngx_str_t user{};
  ngx_str_t password{};
  ngx_str_t prefix = ngx_string("penstock");
  ngx_msec_t timeout = 5;  // the longest that a request waits
  limit::Without without = limit::Without::kLocal;
  ngx_shm_zone_t* memory = nullptr;  // of what this host knows (lease/facts.h)
};

}  // namespace penstock
