#include "worker/queue/shared_jobs/shared_record.h"

#include <fmt/format.h>

#include <algorithm>

#include "shared/wire/message_codec.h"

namespace penstock::queue {
namespace {

// The tags are Redis's, not the wire's.
struct Kept {
  static constexpr wire::FrameType kType = wire::FrameType::kOver;
  std::string_view id, queue, model, tier, jobs_path, label, callback, trace;
  uint64_t owner_lo = 0, owner_hi = 0, share_lo = 0, share_hi = 0, digest_lo = 0, digest_hi = 0,
           earlier_lo = 0, earlier_hi = 0;
  int64_t priority = 0;
  uint64_t weight = 0, cost = 0;
  int64_t created_ms = 0, not_before_ms = 0, deadline_ms = 0;
  uint64_t status = 0;
  int64_t started_ms = 0, finished_ms = 0, expires_ms = 0;
  uint64_t attempts = 0, http_status = 0;
  std::string_view content_type, headers, error_code, error;
  uint64_t prompt_tokens = 0, completion_tokens = 0, device_ns = 0;
  uint64_t estimated = 0, dead = 0, promised = 0, brief = 0, paid = 0;
  std::string_view stored_name, stored_sha256;
  uint64_t stored_bytes = 0, restarts = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, id), v(2, queue), v(3, model), v(4, tier), v(5, jobs_path), v(6, label);
    v(7, owner_lo), v(8, owner_hi), v(9, share_lo), v(10, share_hi);
    v(11, digest_lo), v(12, digest_hi);
    v(13, priority), v(14, weight), v(15, cost);
    v(16, created_ms), v(17, not_before_ms), v(18, deadline_ms), v(19, status);
    v(20, started_ms), v(21, finished_ms), v(22, expires_ms), v(23, attempts), v(24, http_status);
    v(25, content_type), v(26, headers), v(27, error_code), v(28, error);
    v(29, prompt_tokens), v(30, completion_tokens), v(31, device_ns), v(32, estimated);
    v(33, dead), v(34, promised), v(35, brief);
    v(36, stored_name), v(37, stored_sha256), v(38, stored_bytes);
    v(39, callback), v(40, earlier_lo), v(41, earlier_hi), v(42, restarts);
    v(43, paid), v(44, trace);
  }
};

}  // namespace

std::string hex(const limit::Hash128& hash) {
  return fmt::format("{:016x}{:016x}", hash.hi, hash.lo);
}

std::string encode(const JobRecord& record, std::string_view rest) {
  const JobEnd& end = record.end;
  std::string bytes;
  wire::append(bytes, 0,
               Kept{.id = record.id.view(),
                    .queue = record.queue,
                    .model = record.model,
                    .tier = record.tier,
                    .jobs_path = record.jobs_path,
                    .label = record.label,
                    .callback = record.callback,
                    .trace = record.trace,
                    .owner_lo = record.owner.lo,
                    .owner_hi = record.owner.hi,
                    .share_lo = record.share.lo,
                    .share_hi = record.share.hi,
                    .digest_lo = record.digest.lo,
                    .digest_hi = record.digest.hi,
                    .earlier_lo = record.earlier.lo,
                    .earlier_hi = record.earlier.hi,
                    .priority = record.priority,
                    .weight = record.weight,
                    .cost = record.cost,
                    .created_ms = record.created_ms,
                    .not_before_ms = record.not_before_ms,
                    .deadline_ms = record.deadline_ms,
                    .status = static_cast<uint64_t>(record.status),
                    .started_ms = end.started_ms,
                    .finished_ms = end.finished_ms,
                    .expires_ms = end.expires_ms,
                    .attempts = end.attempts,
                    .http_status = end.http_status,
                    .content_type = end.content_type,
                    .headers = end.headers,
                    .error_code = end.error_code,
                    .error = end.error,
                    .prompt_tokens = end.prompt_tokens,
                    .completion_tokens = end.completion_tokens,
                    .device_ns = end.device_ns,
                    .estimated = end.estimated ? 1U : 0U,
                    .dead = end.dead ? 1U : 0U,
                    .promised = record.promised ? 1U : 0U,
                    .brief = record.brief ? 1U : 0U,
                    .paid = record.paid ? 1U : 0U,
                    .stored_name = record.stored_name,
                    .stored_sha256 = record.stored_sha256,
                    .stored_bytes = record.stored_name.empty() ? 0 : record.result_bytes,
                    .restarts = record.restarts});
  return bytes.append(rest);
}

bool decode(std::string_view bytes, JobRecord& record, std::string_view& rest) {
  const wire::Decoded decoded = wire::decode(bytes, {});
  Kept kept;
  if (decoded.kind != wire::Decoded::kFrame || decoded.frame.header.type != Kept::kType ||
      wire::parse(decoded.frame.payload, kept) != nullptr) {
    return false;
  }
  const auto id = parse_job_id(kept.id);
  if (!id || kept.status > static_cast<uint64_t>(JobStatus::kExpired)) {
    return false;
  }
  record = {};
  record.id = *id;
  record.owner = {kept.owner_lo, kept.owner_hi};
  record.share = {kept.share_lo, kept.share_hi};
  record.digest = {kept.digest_lo, kept.digest_hi};
  record.earlier = {kept.earlier_lo, kept.earlier_hi};
  record.queue = kept.queue;
  record.model = kept.model;
  record.tier = kept.tier;
  record.jobs_path = kept.jobs_path;
  record.label = kept.label;
  record.callback = kept.callback;
  record.trace = kept.trace;
  record.priority = kept.priority;
  record.weight = kept.weight;
  record.cost = kept.cost;
  record.created_ms = kept.created_ms;
  record.not_before_ms = kept.not_before_ms;
  record.deadline_ms = kept.deadline_ms;
  record.status = static_cast<JobStatus>(kept.status);
  record.promised = kept.promised != 0;
  record.brief = kept.brief != 0;
  record.paid = kept.paid != 0;
  record.stored_name = kept.stored_name;
  record.stored_sha256 = kept.stored_sha256;
  record.restarts = static_cast<uint8_t>(kept.restarts);
  record.end = {.id = *id,
                .status = record.status,
                .dead = kept.dead != 0,
                .started_ms = kept.started_ms,
                .finished_ms = kept.finished_ms,
                .expires_ms = kept.expires_ms,
                .attempts = static_cast<uint32_t>(kept.attempts),
                .http_status = static_cast<uint16_t>(kept.http_status),
                .content_type = std::string(kept.content_type),
                .headers = std::string(kept.headers),
                .error_code = std::string(kept.error_code),
                .error = std::string(kept.error),
                .prompt_tokens = kept.prompt_tokens,
                .completion_tokens = kept.completion_tokens,
                .device_ns = kept.device_ns,
                .estimated = kept.estimated != 0,
                .notices = {}};
  rest = bytes.substr(decoded.consumed);
  record.result_bytes = kept.stored_name.empty() ? rest.size() : kept.stored_bytes;
  return true;
}

bool decode(const SharedOrder::Known& known, JobRecord& record, std::string_view& answer) {
  using State = SharedOrder::Known::State;
  if (known.state == State::kUnknown || !decode(known.result, record, answer)) {
    return false;
  }
  record.end.attempts = std::max(record.end.attempts, known.attempts);
  record.tells = known.tries;
  record.told = known.outcome != 0                    ? static_cast<JobRecord::Told>(known.outcome)
                : known.due_us != SharedOrder::kNever ? JobRecord::Told::kDue
                                                      : JobRecord::Told::kUnknown;
  if (has_ended(record.status)) {
    return true;
  }
  answer = {};  // it was what was asked
  record.result_bytes = 0;
  if (known.state != State::kOver) {
    record.status = known.state == State::kScheduled ? JobStatus::kScheduled
                    : known.state == State::kRunning ? JobStatus::kProcessing
                                                     : JobStatus::kQueued;
    return true;
  }
  JobEnd& end = record.end;
  end.finished_ms = known.ended_us / 1000;
  switch (known.how) {
    case 'C':
      end.status = JobStatus::kCancelled;
      end.http_status = 410;
      end.error_code = "cancelled";
      end.error = "The job was cancelled.";
      break;
    case 'E':
      end.status = JobStatus::kExpired;
      end.http_status = 504;
      end.error_code = "deadline_exceeded";
      end.error = "The job was not done by its deadline.";
      break;
    default:
      end.status = JobStatus::kFailed;
      end.dead = true;
      end.http_status = 502;
      end.error_code = "engine_failed";
      end.error =
          "The hosts that ran it were lost, all " + std::to_string(known.attempts) + " times.";
  }
  record.status = end.status;
  return true;
}

}  // namespace penstock::queue
