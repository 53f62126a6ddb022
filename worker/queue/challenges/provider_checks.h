// ProviderChecks: asks providers whether tokens are good, off the loop, and answers VERIFY.
//
// A bounded number is under way, in all and for each caller. What is more is answered at once: kBad
// where it is one caller's, else kBusy, as it does not mean that the provider is away. Everything
// is kUnknown for a while after a provider was away several times in a row: nobody waits then for
// what will not come. A token is never asked about again: providers take each once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/event_loop.h"
#include "shared/base/job_id.h"
#include "shared/wire/messages.h"
#include "worker/queue/config/provider_config.h"
#include "worker/queue/link/connection.h"
#include "worker/queue/text/log.h"
#include "worker/queue/webhooks/sender.h"

namespace penstock::queue {

class ProviderChecks {
 public:
  static constexpr size_t kMostPerCaller = 4;  // under way
  static constexpr size_t kMost = 32;          // under way, of each provider
  static_assert(kMost <= static_cast<size_t>(WebhookSender::kMostAtOnce));
  static constexpr unsigned kMostFailures = 5;  // in a row, until it is left alone for a while
  static constexpr int64_t kRestNs = 10 * kNsPerSec;

  // `loop` outlives this.
  explicit ProviderChecks(EventLoop& loop, std::function<int64_t()> now_ns = monotonic_ns,
                          std::function<int64_t()> wall_ns = realtime_ns);
  ~ProviderChecks();
  ProviderChecks(const ProviderChecks&) = delete;
  ProviderChecks& operator=(const ProviderChecks&) = delete;

  // Of a provider that is another now, what is under way is answered kUnknown.
  void apply(const std::vector<ProviderConfig>& providers);
  // Answers `to` by VERIFIED, maybe at once.
  void ask(Connection& to, uint64_t id, const wire::Verify& verify);
  // The connection is at its end.
  void left(const Connection& to);

 private:
  class Provider;
  struct Check {
    Connection* to = nullptr;  // nullptr: it has left
    uint64_t id = 0;
    std::string caller;
  };

  EventLoop& loop_;
  std::function<int64_t()> now_ns_;
  std::function<int64_t()> wall_ns_;
  JobIdMaker ids_;  // of what is under way
  std::map<std::string, std::unique_ptr<Provider>, std::less<>> providers_;
  BoundedLog troubles_;
};

}  // namespace penstock::queue
