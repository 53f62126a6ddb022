// WebhookSender: POSTs, one thread's worth of them at once, by libcurl.
//
// It has a thread of its own, so that no name server and no receiver can hold up the queue. It uses
// no proxy of the environment, no redirects, and nothing but HTTP. The address of a connection is
// judged when it is made, and again before each request on it, as the configuration may have
// changed since (webhook_target.h). Receivers that never answer, or never stop, are cut off.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/job_id.h"
#include "worker/queue/config/webhook_target.h"

namespace penstock::queue {

struct WebhookRequest {
  JobId id;
  std::string url;
  std::vector<std::string> headers;  // "name: value"
  std::string body;
  std::shared_ptr<const WebhookTargets> targets;
  bool wants_body = false;  // of the answer; else it is of no interest
};

struct WebhookResponse {
  JobId id;
  std::string url;
  int status = 0;             // HTTP's; 0: there was none
  bool refused = false;       // none of its addresses may be connected to
  int64_t retry_after_s = 0;  // as the receiver says; 0: it doesn't
  std::string error;          // of the connection
  std::string body;           // if it was wanted
  bool cut = false;           // the body is longer than is read
};

class WebhookSender {
 public:
  static constexpr long kMostPerHost = 4;  // and port
  struct Patience {
    long connect_ms = 5000;  // name server included
    long total_ms = 15'000;
    long per_host = kMostPerHost;
  };
  static constexpr size_t kMaxResponseBytes = 16U << 10;  // of its body
  static constexpr size_t kMaxHeaderBytes = 64U << 10;
  static constexpr long kMostAtOnce = 64;

  WebhookSender() : WebhookSender(Patience()) {}
  explicit WebhookSender(const Patience& patience);
  ~WebhookSender();  // what is under way is given up
  WebhookSender(const WebhookSender&) = delete;
  WebhookSender& operator=(const WebhookSender&) = delete;

  // REQUIRES: fewer than kMostAtOnce are under way, and fewer than per_host to that host; what
  // is more would wait with its time running.
  void send(WebhookRequest request);
  int event_fd() const;  // readable when something has come of one
  std::vector<WebhookResponse> take();

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace penstock::queue
