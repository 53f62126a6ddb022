// Health: what a server says of itself when it is asked: whether it is well (`health:`), how busy
// it is (/metrics), and how long its model's contexts are (/v1/models). While slots linger, how
// many of its own are busy, too (/slots of llama.cpp's server, or /metrics).
//
//     not asked ──2xx──▶ well ──anything else──▶ down ──2xx──▶ well
//
// Only a worker with a `health:` asks. Without one, nothing is ever sent to a server but jobs.
//
// Pure: its owner sends the questions, and pushes replies and time in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/clock.h"
#include "worker/engines/http/server_load.h"

namespace penstock::http_engine {

class Health {
 public:
  static constexpr int64_t kEveryNs = 5 * kNsPerSec;
  static constexpr int64_t kDownEveryNs = kNsPerSec;
  static constexpr int64_t kPatienceNs = 5 * kNsPerSec;
  static constexpr size_t kMaxBytes = 1U << 20;  // of a reply; the rest is not read

  enum class Question : uint8_t { kHealth, kMetrics, kModels, kSlots };
  struct Reply {
    int status = 0;     // 0: there was none
    std::string error;  // then why
    std::string_view body;
  };

  // An empty `path` asks nothing, ever. `model` is the server's name for it. `speaks_openai`: the
  // server may have /v1/models.
  Health(std::string path, std::string model, bool speaks_openai)
      : path_(std::move(path)), model_(std::move(model)), speaks_openai_(speaks_openai) {}

  // True: ask this now, and nothing else before replied().
  bool ask(int64_t now_ns, Question& question);
  std::string_view path(Question question) const;
  void replied(Question question, const Reply& reply, int64_t now_ns);
  // When ask() is to be called; INT64_MAX: not by itself.
  int64_t next_event() const {
    return asking_ || path_.empty() ? INT64_MAX : std::min(due_ns_, slots_due_ns_);
  }
  // Its busy slots are asked for then. `has_slots`: it is one that may have /slots.
  void look_at_slots(int64_t at_ns, bool has_slots);
  // What was said of them last; taken once.
  std::optional<uint64_t> take_busy() { return std::exchange(busy_, std::nullopt); }

  bool well() const { return well_ || path_.empty(); }
  // Why the server is not well, for the operator.
  const std::string& why() const { return why_; }
  const ServerLoad& load() const { return load_; }
  uint64_t context_tokens() const { return context_tokens_; }  // 0: not told
  // Of a server that has several models, and not ours: which; taken once.
  std::string take_others() { return std::exchange(others_, {}); }

 private:
  void take_models(std::string_view body);
  void take_slots(const Reply& reply);

  const std::string path_;
  const std::string model_;
  const bool speaks_openai_;
  bool asking_ = false;
  bool well_ = false;
  std::string why_ = "it has not said that it is well";
  int64_t due_ns_ = 0;
  int64_t slots_due_ns_ = INT64_MAX;
  bool has_slots_ = false;
  bool no_slots_ = false;  // it has said that it has none
  std::optional<uint64_t> busy_;
  Question next_ = Question::kHealth;
  ServerLoad load_;
  uint64_t context_tokens_ = 0;
  std::string others_;
};

}  // namespace penstock::http_engine
