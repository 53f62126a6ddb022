// JobRecord: what is kept on disk of a promised job. JobEnd: how it ended.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/job_id.h"
#include "shared/limit/siphash.h"

namespace penstock::queue {

// CONTRACT's names. On disk a job is kScheduled or kQueued until it has ended: only the penstockd
// that runs it knows that it runs.
enum class JobStatus : uint8_t {
  kScheduled = 0,
  kQueued = 1,
  kProcessing = 2,
  kCompleted = 3,
  kFailed = 4,
  kCancelled = 5,
  kExpired = 6,
};
constexpr bool has_ended(JobStatus status) noexcept { return status >= JobStatus::kCompleted; }

// What an operator's hook is to be told of a job's end; both texts are its own business.
struct Notice {
  std::string hook;
  std::string fields;
  std::string json;
};

// Times are milliseconds since 1970 UTC; 0: not set.
struct JobEnd {
  JobId id;
  JobStatus status = JobStatus::kCompleted;
  bool keep_body = false;  // it may be wanted again
  bool dead = false;  // kFailed: all attempts failed; kept with its body for the operator to see
  int64_t started_ms = 0;
  int64_t finished_ms = 0;
  int64_t expires_ms = 0;  // when it is removed, result and all
  uint32_t attempts = 0;   // that failed
  uint16_t http_status = 0;
  std::string content_type;  // of the result; empty: there is none
  std::string headers;       // of it, besides: "Name: value\n" each
  std::string error_code;    // error.code of CONTRACT, section 4; empty: it went well
  std::string error;         // for the caller's eyes
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t device_ns = 0;
  bool estimated = false;       // nobody told the tokens
  bool done = false;            // its engine has told what it used, whatever it answered
  std::vector<Notice> notices;  // to be kept with it

  // An engine has answered, with whatever status.
  bool answered() const noexcept { return !content_type.empty(); }
};

struct JobRecord {
  JobId id;
  limit::Hash128 owner;  // keyed hash; {}: nobody's
  limit::Hash128 share;  // keyed hash of whose share it takes
  std::string queue;
  std::string model;  // of its lane; empty: any
  std::string tier;
  int64_t priority = 0;
  uint64_t weight = 1;
  uint64_t cost = 1;
  limit::Hash128 key;     // keyed hash of owner (or share) and Idempotency-Key, or of what is
                          // deduplicated; {}: none
  limit::Hash128 digest;  // keyed hash of what was asked, so that one key with another body is seen
  limit::Hash128 earlier;  // keyed hash of what was asked and of whom its answer may be given to;
                           // {}: to nobody
  std::string jobs_path;   // where its owner sees it: "/jobs"
  std::string callback;    // webhook URL; empty: none
  std::string label;       // its owner's words for it; empty: none
  std::string trace;       // that it belongs to (traces/job_trace.h); empty: none
  std::string receipt;     // the edge's
  bool paid = false;       // nobody is charged for it: it runs once more
  int64_t created_ms = 0;
  int64_t not_before_ms = 0;
  int64_t deadline_ms = 0;
  JobStatus status = JobStatus::kQueued;
  JobEnd end;  // once has_ended(status); `id`, `attempts`, `error` and `error_code` also before
  uint64_t result_bytes = 0;
  bool result_in_file = false;
  // Of a queue that hosts share: whether a 202 was said of it, and whether nobody can ask for it
  // once it is over.
  bool promised = false;
  bool brief = false;
  // Likewise: where its result lies that is too large for Redis (shared_jobs/large_results.h), and
  // the file it was brought to, if this host has it.
  std::string stored_name, stored_sha256;
  uint8_t restarts = 0;  // of the answer of a shared one, on the host that ran it
  std::string result_path;
  // Likewise, and once it has ended: how often its URL was told of that, and what came of it.
  enum class Told : uint8_t { kUnknown, kDelivered, kGivenUp, kGone, kDue } told = Told::kUnknown;
  uint32_t tells = 0;

  // It runs again what another job was (penstockctl replay). No tier has its class.
  static constexpr int64_t kReplayPriority = -1'000'000'000;
  bool is_replay() const noexcept { return priority == kReplayPriority; }
  // It is kept for those who ask the same later, and for nothing else: the next such takes its
  // place.
  bool is_spare() const noexcept { return key == earlier && key != limit::Hash128{}; }
};

}  // namespace penstock::queue
