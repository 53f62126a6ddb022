// Answer: one server's answer to one job, read as it comes and passed on.
//
//     head ──2xx──▶ sniffing ──▶ events | lines | json | bytes ──▶ (over)
//       └──else──▶ refusal ───────────────────────────────────▶ (over)
//
// Nothing is said to the caller before the commit point. That is the first event with a part of an
// answer; a JSON answer when it is whole, or longer than kMaxHeldBytes; the first byte of any other
// type. Before it, a failure may still be a status, a return or an attempt. After it, the caller's
// answer is cut short.
//
// What ends an answer: its transfer; [DONE], or what means it; an error in it; a bound; one of five
// timers. After [DONE] the transfer has kDrainNs to end by itself, so that its connection can be
// kept and the server is seen to be done.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>

#include "worker/engines/http/event_splitter.h"
#include "worker/engines/http/headers.h"
#include "worker/engines/http/options.h"
#include "worker/engines/http/request_edit.h"
#include "worker/engines/http/token_count.h"
#include "worker/engines/http/told.h"
#include "worker/engines/http/top_fields.h"
#include "worker/engines/http/verdict.h"
#include "worker/pool/engine.h"
#include "worker/pool/log.h"

namespace penstock::http_engine {

// How a transfer ended.
struct TransferEnd {
  bool whole = false;     // by the rules of its framing
  bool connected = true;  // else there was never a connection
  bool heard = true;      // a byte came back
  bool reused = false;    // on a connection that had served before
  std::string error;      // in libcurl's words
};

// What was decided of the job.
struct Ending {
  std::variant<Usage, Failure> outcome;
  std::optional<Verdict> verdict;  // the url is to rest, or is out
  std::string why;                 // ... for the operator
};

class Answer final : private EventSplitter::Listener {
 public:
  static constexpr size_t kMaxHeldBytes = 64U << 10;
  static constexpr int64_t kDrainNs = 100 * kNsPerMs;

  // What all answers of an engine share; outlives them.
  struct Shared {
    const Options& options;
    Sink& sink;
    Log log;
    TellTale tell_tale;
    TokenSizes sizes;
    std::string key = {};  // "Name: value", the operator's; never in a log
  };

  // `call` outlives this.
  Answer(JobNumber job, const Call& call, Shared& shared, int64_t now_ns);

  // These take what comes. False: the transfer is to be stopped.
  bool on_header(std::string_view line, int64_t now_ns);
  bool on_body(std::string_view bytes, int64_t now_ns);
  // The transfer is over, stopped by us or not. Says all but the end.
  Ending end(const TransferEnd& transfer, int64_t now_ns);

  // When the next of its timers runs out.
  int64_t due_ns() const;
  // A timer has run out: the transfer is to be stopped, and end() says what comes of it.
  void expire(int64_t now_ns);
  // The caller reads again: the timers begin anew.
  void rewind(int64_t now_ns);

  bool committed() const { return committed_; }
  const Head& head() const { return head_; }

 private:
  enum class Phase : uint8_t { kHead, kRefusal, kSniffing, kEvents, kLines, kJson, kBytes };
  enum class Timer : uint8_t {
    kNone,
    kIdle,
    kFirstEvent,
    kEventIdle,
    kAfterFinish,
    kDrain,
    kTotal
  };
  struct Due {
    int64_t at_ns;
    Timer timer;
  };

  bool begin_body();
  void split(EventSplitter::Format format);
  bool sniff(std::string_view bytes);
  bool take(std::string_view bytes);
  bool take_json(std::string_view bytes);
  bool on_event(const Event& event) override;
  bool on_told(const Event& event, Told told);
  void note(const Told& told);
  bool pass(std::string_view bytes);
  void commit(int status, int64_t length);
  void progress_made() { part_ns_ = now_ns_; }
  bool finished() const { return finished_.size() >= call_.choices; }
  Due next_due() const;

  Ending end_stream(const TransferEnd& transfer);
  Ending end_json(const TransferEnd& transfer);
  void note_fields();
  Ending end_bytes(const TransferEnd& transfer);
  Ending end_early(const TransferEnd& transfer);
  Ending refuse();
  Ending judge(int status, const std::optional<ToldError>& error, bool in_200);
  Ending tell(int status, std::string_view type, std::string_view body);
  Ending done();
  Ending cut_short(const std::string& why, bool retryable = true);
  Ending attempt(const std::string& why);
  Ending returned(const std::string& why, const Verdict& verdict);
  Ending too_large();
  Ending expired();
  std::string without_asked(std::string_view said) const;
  void say(LogLevel level, const std::string& what) const;

  const JobNumber job_;
  const Call& call_;
  Shared& shared_;

  Phase phase_ = Phase::kHead;
  Head head_;
  std::string content_type_;  // that the caller is told
  std::optional<EventSplitter> splitter_;
  std::string held_;  // a body, or events, before the commit point
  TopFields fields_;  // of a JSON answer that is too long to be held
  bool committed_ = false;
  int64_t body_bytes_ = 0;  // that came
  int64_t passed_bytes_ = 0;
  uint64_t parts_ = 0;  // events that were passed

  // What the stream has told.
  std::optional<ToldError> error_;
  std::set<int64_t> finished_;  // choices
  bool choices_ = false;        // it is of OpenAI's shape
  bool must_end_ = false;       // it says when it ends
  bool ended_ = false;          // it has said so, or [DONE]
  bool done_told_ = false;      // [DONE] came
  bool tail_open_ = false;      // the last event has no empty line behind it
  bool comments_ = false;       // it sends some
  bool null_usage_ = false;     // its events have a usage that is null
  bool excess_ = false;         // more came after the end
  bool too_large_ = false;
  bool header_flood_ = false;
  Counted counted_;
  std::string not_http_;  // the first bytes of what is no HTTP

  Timer expired_ = Timer::kNone;
  int64_t now_ns_;
  int64_t begun_ns_;
  int64_t byte_ns_;  // when the last came
  int64_t part_ns_;  // when the last part of the answer came
  int64_t finish_ns_ = 0;
  int64_t drain_ns_ = 0;
};

}  // namespace penstock::http_engine
