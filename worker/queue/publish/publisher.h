// Publisher: the pages beside the socket, STATUS and METRICS, kept up to date.
#pragma once

#include <cstdint>
#include <string>

#include "shared/base/result.h"
#include "worker/queue/clock/awake_clock.h"
#include "worker/queue/devices/watch.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/shared_telling.h"
#include "worker/queue/link/listener.h"
#include "worker/queue/publish/published_file.h"
#include "worker/queue/publish/status_page_writer.h"
#include "worker/queue/webhooks/notices.h"
#include "worker/queue/webhooks/webhooks.h"
#include "worker/queue/workers/autoscaler.h"
#include "worker/queue/workers/supervisor.h"

namespace penstock::queue {

class Publisher {
 public:
  // SOCKET.status and SOCKET.metrics, for whoever may connect by `access`.
  static Result<Publisher> create(const std::string& socket, const Access& access);

  // What the pages tell of. `webhooks` may be nullptr.
  struct Sources {
    Dispatcher& dispatcher;
    const Supervisor& supervisor;
    const Autoscaler& autoscaler;
    const DeviceWatch& device_watch;
    const Webhooks* webhooks;
    const Notices* notices;        // likewise
    const SharedTelling* telling;  // likewise
  };
  // A queue's state is published at once, numbers from time to time.
  void publish(const Sources& sources, const AwakeClock& clock, int64_t now_ns);
  int64_t next_event() const;

 private:
  Publisher(StatusPageWriter status, PublishedFile metrics)
      : status_(std::move(status)), metrics_(std::move(metrics)) {}
  void publish_status(Dispatcher& dispatcher, const AwakeClock& clock, int64_t now_ns);
  void publish_metrics(const Sources& sources, int64_t now_ns);

  StatusPageWriter status_;
  PublishedFile metrics_;
  int64_t heartbeat_due_ns_ = 0;
  int64_t metrics_due_ns_ = 0;
};

}  // namespace penstock::queue
