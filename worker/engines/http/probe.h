// Probe: the questions of Health, sent beside the jobs, on the same connections.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "worker/engines/http/headers.h"
#include "worker/engines/http/health.h"
#include "worker/engines/http/options.h"
#include "worker/engines/http/transfers.h"

namespace penstock::http_engine {

class Probe final : private Transfers::Receiver {
 public:
  static constexpr uint64_t kId = UINT64_MAX;  // of its transfers; no job has it

  // All outlive this.
  Probe(const Options& options, Transfers& transfers)
      : options_(options),
        transfers_(transfers),
        health_(options.health,
                options.upstream_model.empty() ? options.model : options.upstream_model,
                options.protocol == Protocol::kOpenai) {}

  // Asks what Health wants to ask, and gives up on what takes too long. `key` is a header, or
  // empty. True: something new is known.
  bool step(int64_t now_ns, const std::string& key);
  // The transfer of id kId has ended.
  void ended(const TransferEnd& end, int64_t now_ns);
  int64_t next_event() const {
    return question_ ? asked_ns_ + Health::kPatienceNs : health_.next_event();
  }

  const Health& health() const { return health_; }
  // See Health; they are asked for at once, or as soon as nothing else is.
  void look_at_slots(int64_t at_ns, bool has_slots) { health_.look_at_slots(at_ns, has_slots); }
  std::optional<uint64_t> take_busy() { return health_.take_busy(); }
  std::string take_others() { return health_.take_others(); }
  // As it called itself in its last answer.
  const std::string& server() const { return server_; }
  // When that was asked for.
  int64_t asked_ns() const { return answered_ns_; }

 private:
  bool on_header(std::string_view line) override { return head_.take(line); }
  bool on_body(std::string_view bytes) override;

  const Options& options_;
  Transfers& transfers_;
  Health health_;
  std::optional<Health::Question> question_;
  int64_t asked_ns_ = 0;
  int64_t answered_ns_ = 0;  // of the last that was answered: when it was asked
  std::string server_;
  Head head_;
  std::string body_;
  bool news_ = false;
};

}  // namespace penstock::http_engine
