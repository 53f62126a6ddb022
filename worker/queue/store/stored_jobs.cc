#include "worker/queue/store/stored_jobs.h"

#include <utility>

namespace penstock::queue {
namespace {

constexpr uint32_t kSweepRows = 200;
// At the start, so much is looked at between what is asked.
constexpr uint32_t kRowsAtOnce = 2000;
constexpr size_t kFilesAtOnce = 500;
constexpr int64_t kToldMs = 60'000;  // a file is opened by then by whoever was told of it
constexpr char kResultLost[] = "Its result could not be stored.";

uint64_t last_sequence_of(JobTables& tables) {
  const auto last = tables.last_id();
  return last ? sequence_of(*last) : 0;
}

}  // namespace

void Ending::lose() {
  end.status = JobStatus::kFailed;
  end.http_status = 502;
  end.content_type.clear();
  end.headers.clear();
  end.error_code = "engine_failed";
  end.error = kResultLost;
  end.notices.clear();
  offset = 0;
  rest = {};
}

StoredJobs::StoredJobs(std::unique_ptr<JobTables> tables, ResultFiles files, DiskState& disk)
    : tables_(std::move(tables)),
      files_(std::move(files)),
      disk_(disk),
      account_(last_sequence_of(*tables_)),
      dead_(tables_->count_dead()) {
  measure();
}

bool StoredJobs::begin(bool writes) {
  file_error_.reset();
  return !writes || tables_->begin();
}

bool StoredJobs::commit(bool writes) {
  if (writes && !tables_->commit()) {
    return false;
  }
  settle();
  return true;
}

void StoredJobs::roll_back() {
  tables_->roll_back();
  account_.roll_back();
  changes_ = {};
}

bool StoredJobs::savepoint() {
  file_error_.reset();
  changes_before_ = changes_;
  mark_ = account_.mark();
  return tables_->savepoint();
}

bool StoredJobs::undo() {
  file_error_.reset();
  changes_ = std::move(changes_before_);
  account_.undo(mark_);
  return tables_->undo();
}

void StoredJobs::settle() {
  account_.settle();
  dead_ += static_cast<uint64_t>(std::exchange(changes_.dead, 0));
  for (const uint64_t sequence : std::exchange(changes_.sealed, {})) {
    open_files_.erase(sequence);
    spoiled_.erase(sequence);
  }
  measure();
}

// A full disk is no fault of the file; what the database refuses is one of what it was asked.
Fault StoredJobs::fault() const {
  if (file_error_) {
    return {*file_error_, file_error_->kind != ErrorKind::kNoSpace};
  }
  const Error error = tables_->error();
  return {error, error.kind == ErrorKind::kRefused};
}

// Whether it succeeded.
bool StoredJobs::note(const Status& of_file) {
  file_error_ = of_file ? std::nullopt : std::optional(of_file.error());
  return static_cast<bool>(of_file);
}

// Results, and those that are being written.
void StoredJobs::measure() {
  uint64_t files = account_.file_bytes();
  for (const auto& [sequence, bytes] : open_files_) {
    files += bytes;
  }
  bytes_ = files + tables_->bytes();
  disk_bytes_ = files + tables_->disk_bytes() + disk_.reserve().bytes();
}

bool StoredJobs::promise(const JobRecord& job, std::string_view submit, const Bounds& bounds,
                         PromiseOutcome& outcome) {
  const int64_t bytes = static_cast<int64_t>(submit.size()) + JobTables::kRowBytes;
  const uint64_t whose = job.share.lo;
  if (bytes_ >= bounds.bytes || !disk_.reserve().whole()) {
    outcome = PromiseOutcome::kFull;
    return true;
  }
  if (bounds.share_bytes > 0 && bytes + account_.of_share(whose) > bounds.share_bytes) {
    outcome = PromiseOutcome::kShareFull;
    return true;
  }
  bool duplicate = false;
  const bool good = tables_->insert(job, submit, duplicate);
  outcome = duplicate ? PromiseOutcome::kDuplicate : PromiseOutcome::kStored;
  if (good && !duplicate) {
    account_.charge({sequence_of(job.id), whose, bytes});
  }
  return good;
}

bool StoredJobs::take_back(const JobId& id) {
  std::optional<JobRecord> job;
  return tables_->find(id, job) && (!job || forget(*job));
}

bool StoredJobs::insert(const JobRecord& job, bool needed, const Bounds& bounds) {
  bool duplicate = false;
  if (job.is_spare()) {
    std::optional<JobRecord> before;
    JobTables::Charge had;
    if (!tables_->find_key(job.key, before) || (before && !tables_->charge_of(before->id, had))) {
      return false;
    }
    if (!needed && !has_room_for_spare(job.share.lo, had, bounds)) {
      return discard_result(job.id);
    }
    if (before && !replace(*before, job.end.finished_ms)) {
      return false;
    }
  }
  if (!tables_->insert(job, {}, duplicate)) {
    return false;
  }
  if (!duplicate) {
    account_.charge({sequence_of(job.id), job.share.lo, JobTables::kRowBytes});
  }
  return true;
}

// `had`: what the one before it takes.
bool StoredJobs::has_room_for_spare(uint64_t whose, const JobTables::Charge& had,
                                    const Bounds& bounds) const {
  const auto freed = static_cast<uint64_t>(had.bytes);
  const int64_t of_share = account_.of_share(whose) - (had.whose == whose ? had.bytes : 0);
  return bytes_ < bounds.bytes / 2 + freed &&
         (bounds.share_bytes == 0 || of_share < bounds.share_bytes / 2);
}

// Somebody may just have been told of its file: that stays for a moment.
bool StoredJobs::replace(const JobRecord& spare, int64_t now_ms) {
  return spare.result_in_file ? tables_->retire(spare.id, now_ms + kToldMs) : forget(spare);
}

bool StoredJobs::write_result(const JobId& id, uint64_t offset, std::string_view bytes) {
  const uint64_t sequence = sequence_of(id);
  if (spoiled_.contains(sequence)) {
    return true;
  }
  open_files_[sequence] = offset + bytes.size();
  return note(files_.write(id, offset, bytes));
}

bool StoredJobs::discard_result(const JobId& id) {
  changes_.sealed.push_back(sequence_of(id));
  files_.remove(id);
  return true;
}

bool StoredJobs::finish(Ending& ending, uint64_t max_bytes, bool promised) {
  JobEnd& end = ending.end;
  if (end.status == JobStatus::kCompleted && spoiled_.contains(sequence_of(end.id))) {
    ending.lose();
  }
  const std::string& rest = ending.rest;
  const bool in_file = ending.offset > 0 || rest.size() > kInlineResultBytes;
  const uint64_t bytes = ending.offset + rest.size();
  std::optional<JobTables::Finished> finished;
  if (!tables_->finish(end, rest, bytes, in_file, finished)) {
    return false;
  }
  if (!finished) {
    return true;
  }
  if (in_file && ((!rest.empty() && !write_result(end.id, ending.offset, rest)) ||
                  !note(files_.seal(end.id, bytes)))) {
    return false;
  }
  if (bytes_ < max_bytes / 4 * 3 && !tables_->notices().insert(end)) {
    return false;
  }
  if (promised) {
    tables_->usage().add_end(finished->used, usage_of(end, finished->paid));
  }
  account_.charge(finished->more);
  if (!in_file && (end.attempts > 0 || end.status != JobStatus::kCompleted ||
                   open_files_.contains(sequence_of(end.id)))) {
    changes_.gone.push_back(end.id);  // what an attempt may have left
  }
  changes_.dead += end.dead ? 1 : 0;
  changes_.sealed.push_back(sequence_of(end.id));
  return true;
}

bool StoredJobs::requeue(const JobId& id, int64_t deadline_ms, std::string_view trace,
                         std::optional<JobRecord>& job) {
  const bool good = tables_->requeue(id, deadline_ms, trace, job);
  changes_.dead -= good && job ? 1 : 0;
  return good;
}

bool StoredJobs::drop(const JobId& id, bool& dropped) {
  std::optional<JobRecord> job;
  if (!tables_->find(id, job)) {
    return false;
  }
  dropped = job && has_ended(job->status);
  return !dropped || forget(*job);
}

bool StoredJobs::purge(const JobId& id, bool& purged) {
  return drop(id, purged) && (!purged || tables_->erase_notices(id));
}

bool StoredJobs::forget(const JobRecord& job) {
  JobTables::Charge had;
  if (!tables_->charge_of(job.id, had) || !tables_->erase(job)) {
    return false;
  }
  account_.charge({had.seq, had.whose, -had.bytes, -had.file_bytes});
  changes_.dead -= job.end.dead ? 1 : 0;
  if (job.result_in_file) {
    changes_.gone.push_back(job.id);
  }
  return true;
}

bool StoredJobs::sweep(int64_t now_ms, const UsageBounds& ledger, Swept& swept) {
  std::vector<JobRecord> jobs;
  std::vector<DamagedRow> damaged;
  bool good = tables_->expired(now_ms, kSweepRows, jobs, damaged);
  for (size_t i = 0; good && i < jobs.size(); ++i) {
    good = forget(jobs[i]);
  }
  for (size_t i = 0; good && i < damaged.size(); ++i) {
    good = tables_->erase_damaged(damaged[i]);
  }
  good = good && tables_->usage().prune(now_ms / kHourMs - ledger.keep_hours, ledger.rows);
  swept.more = jobs.size() + damaged.size() == kSweepRows;
  return good && tables_->shrink(swept.shrank);
}

bool StoredJobs::count_some(bool& more) {
  std::vector<JobTables::Charge> charges;
  const bool good = tables_->charges(account_.counted_up_to(), kRowsAtOnce, charges);
  more = good && charges.size() == kRowsAtOnce && charges.back().seq < last_sequence();
  for (const JobTables::Charge& each : charges) {
    account_.count(each);
  }
  if (good && !more) {
    account_.count_no_more();
  }
  return good;
}

bool StoredJobs::remove_stray_files(ResultFiles::Round& round) {
  return round.look(kFilesAtOnce, [this](const JobId& id) {
    const uint64_t sequence = sequence_of(id);
    return sequence > last_sequence() || open_files_.contains(sequence) ||
           tables_->has_result_file(id);
  });
}

std::vector<JobId> StoredJobs::take_unwanted_files() { return std::exchange(changes_.gone, {}); }

void StoredJobs::keep_files(bool keep) {
  std::vector<JobId> ids;
  {
    const MutexLock lock(kept_files_.mutex);
    kept_files_.keep = keep;
    if (!keep) {
      ids.swap(kept_files_.ids);
    }
  }
  remove_files(ids);
}

void StoredJobs::remove_files(const std::vector<JobId>& ids) {
  {
    const MutexLock lock(kept_files_.mutex);
    if (kept_files_.keep) {
      kept_files_.ids.insert(kept_files_.ids.end(), ids.begin(), ids.end());
      return;
    }
  }
  for (const JobId& id : ids) {
    files_.remove(id);
  }
}

}  // namespace penstock::queue
