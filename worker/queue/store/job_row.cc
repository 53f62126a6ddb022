#include "worker/queue/store/job_row.h"

#include <utility>

namespace penstock::queue {
namespace {

constexpr char kColumns[] =
    "SELECT id, owner, status, key, digest, queue, model, tier, priority, weight, cost, jobs_path,"
    " callback, receipt, created_ms, not_before_ms, deadline_ms, attempts, dead, started_ms,"
    " finished_ms, expires_ms, http_status, content_type, error_code, error, prompt_tokens,"
    " completion_tokens, device_ns, result_bytes, result_in_file, headers, estimated, share, "
    "label, seq, trace ";
constexpr int kShareColumn = 33;
constexpr int kLabelColumn = 34;
constexpr int kSeqColumn = 35;
constexpr int kTraceColumn = 36;

}  // namespace

std::string select_jobs(std::string_view from) { return kColumns + std::string(from); }

bool read_row(Statement& row, JobRecord& job) {
  const auto id = parse_job_id(row.bytes(0));
  const int64_t status = row.number(2);
  if (!id || !read_hash(row.bytes(1), job.owner) || status < 0 ||
      status > static_cast<int64_t>(JobStatus::kExpired) ||
      (!row.null(3) && !read_hash(row.bytes(3), job.key)) || !read_hash(row.bytes(4), job.digest) ||
      (!row.null(kShareColumn) && !read_hash(row.bytes(kShareColumn), job.share))) {
    return false;
  }
  if (row.null(kShareColumn)) {
    job.share = job.owner;
  }
  job.id = job.end.id = *id;
  job.status = job.end.status = static_cast<JobStatus>(status);
  job.queue = row.bytes(5);
  job.model = row.bytes(6);
  job.tier = row.bytes(7);
  job.priority = row.number(8);
  job.weight = static_cast<uint64_t>(row.number(9));
  job.cost = static_cast<uint64_t>(row.number(10));
  job.jobs_path = row.bytes(11);
  job.callback = row.bytes(12);
  job.receipt = row.bytes(13);
  job.created_ms = row.number(14);
  job.not_before_ms = row.number(15);
  job.deadline_ms = row.number(16);
  job.end.attempts = static_cast<uint32_t>(row.number(17));
  job.end.dead = row.number(18) != 0;
  job.end.started_ms = row.number(19);
  job.end.finished_ms = row.number(20);
  job.end.expires_ms = row.number(21);
  job.end.http_status = static_cast<uint16_t>(row.number(22));
  job.end.content_type = row.bytes(23);
  job.end.error_code = row.bytes(24);
  job.end.error = row.bytes(25);
  job.end.prompt_tokens = static_cast<uint64_t>(row.number(26));
  job.end.completion_tokens = static_cast<uint64_t>(row.number(27));
  job.end.device_ns = static_cast<uint64_t>(row.number(28));
  job.result_bytes = static_cast<uint64_t>(row.number(29));
  job.result_in_file = row.number(30) != 0;
  job.label = row.bytes(kLabelColumn);
  job.trace = row.bytes(kTraceColumn);
  job.end.headers = row.bytes(31);
  job.end.estimated = row.number(32) != 0;
  return true;
}

bool read_one(Statement& rows, std::optional<JobRecord>& job) {
  if (JobRecord read; rows.step() && read_row(rows, read)) {
    job = std::move(read);
  }
  const bool good = !rows.failed();
  rows.reset();
  return good;
}

DamagedRow read_damaged(Statement& row) {
  return {row.number(kSeqColumn), std::string(row.bytes(1)), std::string(row.bytes(0))};
}

}  // namespace penstock::queue
