// The edge's view of its penstockds: their status pages, mapped by each Nginx worker, read without
// a system call.
#pragma once

#include "ngx_module/conf/conf.h"
#include "shared/wire/status_page.h"

namespace penstock {

constexpr size_t kMaxSocketLabel = 3 * sizeof(sockaddr_un::sun_path);

struct StatusSource {
  ngx_str_t socket{};                // its path
  ngx_str_t path{};                  // the same, and ".status" behind it
  ngx_str_t label{};                 // the socket, as a metric's label has it
  wire::StatusPage* page = nullptr;  // this worker's copy; its magic is 0 while there is none
};

// The source for a Unix socket, one per socket in the whole configuration. nullptr when memory ran
// out.
StatusSource* source_of(ngx_conf_t* cf, std::string_view socket_path) noexcept;

// Reads a page of `bytes` bytes that a penstockd publishes. The page lies in memory (/run), so
// reading it waits for no disk. False when it is not there whole.
bool read_page(const char* path, void* page, size_t bytes) noexcept;

// What it says at this moment; nullptr if it cannot be believed, as its penstockd is gone.
const wire::StatusPage* fresh_page(const StatusSource& source, int64_t now_ns) noexcept;

struct QueueRefusal {
  std::string_view reason;
  int64_t retry_after_s = 1;
  bool may_promise = false;  // only who waits is refused: there is nobody to answer
  int64_t step_ns = 0;       // a full queue has room for one more so often; 0: it isn't that
  int64_t taken_ns = 0;      // from now until when others were told to come back
  int64_t drained_ns = 0;    // in which all that wait have left it
};

// True when every penstockd that the location may use says that it would refuse a job for its queue
// now.
bool queue_refuses(const LocConf& loc, QueueRefusal& why) noexcept;

// False when no penstockd that the location may use is up.
bool queue_answers(const LocConf& loc) noexcept;

// Called in each worker process.
ngx_int_t start_status_timer(ngx_cycle_t* cycle) noexcept;

}  // namespace penstock
