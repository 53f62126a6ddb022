#include "worker/queue/store/store.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "shared/base/clock.h"
#include "worker/queue/store/job_tables.h"
#include "worker/queue/store/result_files.h"
#include "worker/queue/store/state_folder.h"
#include "worker/queue/store/stored_jobs.h"
#include "worker/queue/store/upkeep.h"
#include "worker/queue/store/write_queue.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

class SqliteStore final : public Store {
 public:
  SqliteStore(const Options& options, StateFolder folder, ResultFiles files,
              std::unique_ptr<JobTables> tables, std::vector<std::string> notices)
      : max_bytes_(static_cast<uint64_t>(options.max_bytes)),
        max_share_bytes_(options.max_share_bytes),
        folder_(std::move(folder)),
        notices_(std::move(notices)),
        last_id_(tables->last_id()),
        newest_ms_(tables->newest_ms()),
        usage_mark_(tables->usage().mark()),
        disk_(Reserve(folder_.directory.get(), options.reserve_bytes, *folder_.calls)) {
    if (!disk_.reserve().take()) {
      disk_.become(Disk::kSpare);
      disk_.note_want(folder_.path + ": there is no room on disk for the ends of what is promised");
    }
    jobs_.emplace(std::move(tables), std::move(files), disk_);
    queue_.emplace(
        *jobs_, disk_,
        WriteQueue::Options{.retry_ms = options.retry_ms,
                            .file_tries = options.file_tries,
                            .log_bytes = options.log_bytes,
                            .on_lost_result = [this](const JobId& id, const std::string& why) {
                              if (on_lost_result) {
                                on_lost_result(id, why);
                              }
                            }});
    upkeep_.emplace(*queue_, *jobs_, disk_, folder_);
  }

  ~SqliteStore() override {
    queue_.reset();
    jobs_.reset();
    if (disk() == Disk::kWell || disk() == Disk::kSpare) {
      folder_.note_closed();
    }
  }

  const std::vector<std::string>& notices() const override { return notices_; }
  const limit::Secret& secret() const override { return folder_.secret; }
  std::optional<JobId> last_id() const override { return last_id_; }
  int64_t newest_ms() const override { return newest_ms_; }
  int lock_fd() const override { return folder_.lock.get(); }
  int event_fd() const override { return queue_->event_fd(); }
  void tell_done() override { queue_->tell_done(); }
  void set_max_bytes(int64_t bytes, int64_t of_a_share) override {
    max_bytes_ = static_cast<uint64_t>(bytes), max_share_bytes_ = of_a_share;
  }
  size_t pending() const override { return queue_->pending(); }
  size_t pending_bytes() const override { return queue_->pending_bytes(); }
  std::string result_path(const JobId& id) const override { return jobs_->files().path(id); }

  Status recover(const std::function<void(JobRecord&&)>& job,
                 const std::function<void(const std::string&)>& gone_url) override {
    std::vector<JobRecord> jobs;
    std::vector<std::string> gone_urls;
    std::vector<DamagedRow> damaged;
    Status good = read_now([&] {
      return tables().unfinished([&](JobRecord&& each) { jobs.push_back(std::move(each)); },
                                 damaged) &&
             tables().deliveries().gone_urls(gone_urls);
    });
    if (!good) {
      return good;
    }
    end_damaged(std::move(damaged));
    for (JobRecord& each : jobs) {
      job(std::move(each));
    }
    for (const std::string& each : gone_urls) {
      gone_url(each);
    }
    upkeep_->look_at_all();
    return Ok{};
  }

  Status unsettled(size_t most, const std::function<void(JobRecord&&)>& each) override {
    std::vector<JobRecord> jobs;
    Status good = read_now([&] {
      return tables().unsettled(most, [&](JobRecord&& job) { jobs.push_back(std::move(job)); });
    });
    for (JobRecord& job : jobs) {
      each(std::move(job));
    }
    return good;
  }
  Result<Orders> orders() override {
    Orders orders;
    Status good = read_now([&] { return tables().orders(orders); });
    return good ? Result<Orders>(std::move(orders)) : good.error();
  }
  void set_order(const std::string& name, std::optional<int64_t> value) override {
    queue_->write([this, name, value] { return tables().set_order(name, value); });
  }

  void promise(JobRecord job, SharedBytes submit,
               std::function<void(PromiseOutcome)> on_done) override {
    auto outcome = std::make_shared<PromiseOutcome>(PromiseOutcome::kBroken);
    const size_t bytes = submit.size();
    const JobId id = job.id;
    queue_->ask(
        {.kind = Operation::kPromise,
         .bytes = bytes,
         .run =
             [this, job = std::move(job), submit = std::move(submit), outcome] {
               return jobs_->promise(job, submit.view(), {max_bytes_, max_share_bytes_}, *outcome);
             },
         .on_done = [outcome, on_done = std::move(on_done)] { on_done(*outcome); },
         .on_refused =
             [outcome](bool full) {
               *outcome = full ? PromiseOutcome::kFull : PromiseOutcome::kBroken;
             },
         .undo = [this, id] { return jobs_->take_back(id); }});
  }

  void attempt(const JobId& id, uint32_t attempts, std::string code, std::string error) override {
    queue_->write([this, id, attempts, code = std::move(code), error = std::move(error)] {
      return tables().set_attempt(id, attempts, code, error);
    });
  }

  void append_result(const JobId& id, uint64_t offset, std::string bytes) override {
    const size_t size = bytes.size();
    queue_->ask({.kind = Operation::kWrite,
                 .job = id,
                 .part = true,
                 .bytes = size,
                 .run = [this, id, offset, bytes = std::move(bytes)] {
                   return jobs_->write_result(id, offset, bytes);
                 }});
  }

  void discard_result(const JobId& id) override {
    queue_->ask({.kind = Operation::kWrite, .job = id, .run = [this, id] {
                   return jobs_->discard_result(id);
                 }});
  }

  void finish(JobEnd end, uint64_t offset, std::string rest,
              std::function<void(const JobEnd&)> on_done) override {
    end_job({std::move(end), offset, std::move(rest)}, {}, std::move(on_done));
  }

  void keep(JobRecord job, bool needed, uint64_t offset, std::string rest,
            std::function<void(const JobEnd&)> on_done) override {
    JobEnd end = job.end;
    job.status = JobStatus::kQueued;
    end_job(
        {std::move(end), offset, std::move(rest)},
        [this, job = std::move(job), needed] {
          return jobs_->insert(job, needed, {max_bytes_, max_share_bytes_});
        },
        std::move(on_done));
  }

  void requeue(const JobId& id, int64_t deadline_ms, std::string trace,
               std::function<void(std::optional<JobRecord>)> on_done) override {
    queue_->ask_for<std::optional<JobRecord>>(
        Operation::kWrite,
        [this, id, deadline_ms, trace = std::move(trace)](auto& job) {
          return jobs_->requeue(id, deadline_ms, trace, job);
        },
        std::move(on_done));
  }

  void drop(const JobId& id, std::function<void(bool)> on_done) override {
    queue_->ask_for<bool>(
        Operation::kWrite, [this, id](bool& dropped) { return jobs_->drop(id, dropped); },
        std::move(on_done));
  }

  void purge(const JobId& id, std::function<void(bool)> on_done) override {
    queue_->ask_for<bool>(
        Operation::kWrite,
        [this, id](bool& purged) {
          const bool good = jobs_->purge(id, purged);
          if (good && purged) {
            upkeep_->note_purge();
          }
          return good;
        },
        [this, on_done = std::move(on_done)](bool purged) {
          if (purged) {
            upkeep_->wipe();
          }
          on_done(purged);
        });
  }

  void back_up(std::function<void(Status)> on_done) override {
    upkeep_->back_up(std::move(on_done));
  }
  void forget_backup() override { upkeep_->forget_backup(); }

  void settled(uint64_t number) override {
    queue_->write([this, number] { return tables().set_settled(number); });
  }
  void delivered(const JobId& id, uint32_t tries, int64_t due_ms) override {
    queue_->write([=, this] { return tables().deliveries().set(id, tries, due_ms); });
  }

  void due(const DueQuery& query, std::function<void(DuePage)> on_done) override {
    queue_->ask_for<DuePage>(
        Operation::kRead,
        [this, query](DuePage& page) { return tables().deliveries().due(query, page); },
        std::move(on_done));
  }
  void disable_url(std::string url) override {
    queue_->write([this, url = std::move(url)] { return tables().deliveries().disable_url(url); });
  }

  void due_notices(const NoticeQuery& query, std::function<void(NoticePage)> on_done) override {
    queue_->ask_for<NoticePage>(
        Operation::kRead,
        [this, query](NoticePage& page) { return tables().notices().due(query, page); },
        std::move(on_done));
  }
  void noticed(const DueNotice& notice, uint32_t tries, int64_t due_ms,
               std::function<void()> on_done) override {
    queue_->write(
        [this, notice, tries, due_ms] { return tables().notices().set(notice, tries, due_ms); },
        std::move(on_done));
  }
  void notify(const JobEnd& end) override {
    queue_->write([this, end] { return tables().notices().insert(end); });
  }
  void keep_hooks(std::vector<std::string> names) override {
    queue_->write([this, names = std::move(names)] { return tables().notices().keep(names); });
  }

  void note_away(std::string id, std::string job, std::function<void(bool)> on_done) override {
    auto good = std::make_shared<bool>(true);
    queue_->ask(
        {.kind = Operation::kPromise,
         .bytes = job.size(),
         .run = [this, id, job = std::move(job)] { return tables().away().insert(id, job); },
         .on_done = [good, on_done = std::move(on_done)] { on_done(*good); },
         .on_refused = [good](bool) { *good = false; },
         .undo = [this, id] { return tables().away().erase(id); }});
  }
  void forget_away(std::string id) override {
    queue_->write([this, id = std::move(id)] { return tables().away().erase(id); });
  }
  void find_away(std::string id, std::function<void(std::optional<std::string>)> on_done) override {
    queue_->ask_for<std::optional<std::string>>(
        Operation::kRead,
        [this, id = std::move(id)](auto& job) { return tables().away().find(id, job); },
        std::move(on_done));
  }
  Status away(const std::function<void(std::string_view, std::string_view)>& each) override {
    return read_now([&] { return tables().away().each(each); });
  }

  void sweep(int64_t now_ms) override { upkeep_->sweep(now_ms, ledger_); }
  void clamp_expiries(int64_t now_ms) override {
    queue_->write([this, now_ms] { return tables().clamp_expiries(now_ms); });
  }

  void fetch(const JobId& id, std::function<void(Result<std::string>)> on_done) override {
    read_blob(&JobTables::submit_of, id, "the request", std::move(on_done));
  }
  void read_result(const JobId& id, std::function<void(Result<std::string>)> on_done) override {
    read_blob(&JobTables::result_of, id, "the result", std::move(on_done));
  }
  void find(const JobId& id, std::function<void(std::optional<JobRecord>)> on_done) override {
    queue_->ask_for<std::optional<JobRecord>>(
        Operation::kRead, [this, id](auto& job) { return tables().find(id, job); },
        std::move(on_done));
  }
  void find_key(const limit::Hash128& key,
                std::function<void(std::optional<JobRecord>)> on_done) override {
    queue_->ask_for<std::optional<JobRecord>>(
        Operation::kRead, [this, key](auto& job) { return tables().find_key(key, job); },
        std::move(on_done));
  }
  void find_earlier(const limit::Hash128& earlier,
                    std::function<void(std::optional<KeptAnswer>)> on_done) override {
    queue_->ask_for<std::optional<KeptAnswer>>(
        Operation::kRead,
        [this, earlier](auto& kept) { return tables().find_earlier(earlier, kept); },
        std::move(on_done));
  }
  void list(const JobQuery& query, std::function<void(JobPage)> on_done) override {
    queue_->ask_for<JobPage>(
        Operation::kRead, [this, query](auto& page) { return tables().lists().list(query, page); },
        std::move(on_done));
  }

  uint64_t usage_mark() const override { return usage_mark_; }
  void set_usage_bounds(const UsageBounds& bounds) override { ledger_ = bounds; }
  void add_usage(std::vector<UsageRow> rows, uint64_t mark,
                 std::function<void()> on_done) override {
    queue_->write([this, rows = std::move(rows), mark] { return tables().usage().add(rows, mark); },
                  std::move(on_done));
  }
  void usage(const UsageQuery& query, std::function<void(UsagePage)> on_done) override {
    queue_->ask_for<UsagePage>(
        Operation::kRead,
        [this, query](UsagePage& page) { return tables().usage().read(query, page); },
        std::move(on_done));
  }

  int64_t unwritten_hour() const override {
    return ends_.empty() ? INT64_MAX : ends_.begin()->first;
  }

  Disk disk() const override { return disk_.now(); }
  Status health() const override {
    return disk() == Disk::kWell ? Status(Ok{}) : Status(Error{last_fault()});
  }
  std::string last_fault() const override { return disk_.last_fault(); }

  Figures figures() const override {
    const StoredJobs::Figures jobs = jobs_->figures();
    const WriteQueue::Figures queue = queue_->figures();
    return {.commits = queue.commits,
            .commit_ns = queue.commit_ns,
            .dead = jobs.dead,
            .bytes = jobs.bytes,
            .disk_bytes = jobs.disk_bytes,
            .write_errors = disk_.faults(),
            .lost_results = queue.lost_results,
            .usage_rows = jobs.usage_rows,
            .damaged_rows = damaged_rows_};
  }

 private:
  JobTables& tables() { return jobs_->tables(); }
  // `before`: nothing, of what was promised.
  void end_job(Ending ending, std::function<bool()> before,
               std::function<void(const JobEnd&)> on_done) {
    const auto shared = std::make_shared<Ending>(std::move(ending));
    const int64_t hour = shared->end.finished_ms / kHourMs;
    ++ends_.try_emplace(hour).first->second;
    queue_->ask({.kind = Operation::kWrite,
                 .job = shared->end.id,
                 .bytes = shared->rest.size(),
                 .run =
                     [this, shared, before = std::move(before)] {
                       return (!before || before()) && jobs_->finish(*shared, max_bytes_, !before);
                     },
                 .on_done =
                     [this, shared, hour, on_done = std::move(on_done)] {
                       if (const auto found = ends_.find(hour); --found->second == 0) {
                         ends_.erase(found);
                       }
                       on_done(shared->end);
                     },
                 .lose_result = [shared] { shared->lose(); }});
  }

  Status read_now(const std::function<bool()>& run) {
    return queue_->ask_and_wait(run) ? Status(Ok{})
                                     : Error{folder_.path + "/jobs.db: its jobs cannot be read"};
  }
  void read_blob(bool (JobTables::*get)(const JobId&, std::optional<std::string>&), const JobId& id,
                 std::string what, std::function<void(Result<std::string>)> on_done) {
    queue_->ask_for<std::optional<std::string>>(
        Operation::kRead, [this, get, id](auto& blob) { return (tables().*get)(id, blob); },
        [id, what = std::move(what),
         on_done = std::move(on_done)](std::optional<std::string> blob) {
          on_done(
              blob ? Result<std::string>(*std::move(blob))
                   : Error{what + " of " + std::string(id.view()) + " cannot be read from disk"});
        });
  }

  // A promise that cannot be read is not passed over: it has failed.
  void end_damaged(std::vector<DamagedRow> rows) {
    for (const DamagedRow& row : rows) {
      log(Level::kError, "what is kept of promised job " + row.id + " (row " +
                             std::to_string(row.seq) + ") is damaged: it has failed");
    }
    damaged_rows_ += rows.size();
    if (!rows.empty()) {
      queue_->write([this, rows = std::move(rows)] {
        return std::all_of(rows.begin(), rows.end(), [this](const DamagedRow& row) {
          return tables().end_damaged(row, realtime_ns() / kNsPerMs);
        });
      });
    }
  }

  std::atomic<uint64_t> max_bytes_;
  std::atomic<int64_t> max_share_bytes_;
  StateFolder folder_;
  const std::vector<std::string> notices_;
  const std::optional<JobId> last_id_;
  const int64_t newest_ms_;
  const uint64_t usage_mark_;
  UsageBounds ledger_;
  std::map<int64_t, size_t> ends_;  // that are being written, by the hour in which they came
  uint64_t damaged_rows_ = 0;
  DiskState disk_;
  std::optional<StoredJobs> jobs_;  // the queue's thread's
  std::optional<WriteQueue> queue_;
  std::optional<Upkeep> upkeep_;
};

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const Options& options) {
  FileCalls& calls = options.files != nullptr ? *options.files : FileCalls::system();
  Fd lock = options.lock != nullptr ? std::move(*options.lock) : Fd();
  auto folder = StateFolder::open(options.folder, options.group, calls, std::move(lock));
  if (!folder) {
    return folder.error();
  }
  std::vector<std::string> notices;
  auto tables = JobTables::open({.path = folder->path + "/jobs.db",
                                 .vfs = options.vfs,
                                 .log_bytes = options.log_bytes,
                                 .check = folder->unclean},
                                notices);
  if (!tables) {
    return tables.error();
  }
  auto files = ResultFiles::open(folder->path + "/results", folder->group, *folder->calls);
  if (!files) {
    return files.error();
  }
  Upkeep::begin_anew(folder->path);
  folder->note_open();
  if (Status flushed = folder->flush(); !flushed) {
    return flushed.error();
  }
  return std::unique_ptr<Store>(std::make_unique<SqliteStore>(
      options, *std::move(folder), *std::move(files), *std::move(tables), std::move(notices)));
}

}  // namespace penstock::queue
