#include "worker/queue/store/store.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "shared/base/clock.h"
#include "worker/queue/store/fault.h"
#include "worker/queue/store/group_flusher.h"
#include "worker/queue/store/job_tables.h"
#include "worker/queue/store/reserve.h"
#include "worker/queue/store/result_files.h"
#include "worker/queue/store/state_folder.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr uint32_t kSweepRows = 200;
constexpr uint64_t kPageBytes = 4096;
// So many parts of the log's length are used before it is moved into the database.
constexpr uint64_t kLogParts = 8;
// At the start, so much is looked at between what is asked.
constexpr uint32_t kRowsAtOnce = 2000;
constexpr size_t kFilesAtOnce = 500;
constexpr char kResultLost[] = "Its result could not be stored.";

class SqliteStore final : public Store {
 public:
  SqliteStore(const Options& options, StateFolder folder, ResultFiles files,
              std::unique_ptr<JobTables> tables, std::vector<std::string> notices)
      : max_bytes_(static_cast<uint64_t>(options.max_bytes)),
        max_share_bytes_(options.max_share_bytes),
        retry_(options.retry_ms),
        log_bytes_(options.log_bytes),
        file_tries_(options.file_tries),
        folder_(std::move(folder)),
        files_(std::move(files)),
        tables_(std::move(tables)),
        notices_(std::move(notices)),
        event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        reserve_(folder_.directory.get(), options.reserve_bytes, *folder_.calls) {
    last_id_ = tables_->last_id();
    last_seq_ = last_id_ ? sequence_of(*last_id_) : 0;
    newest_ms_ = tables_->newest_ms();
    dead_ = tables_->count_dead();
    if (!reserve_.take()) {
      disk_ = Disk::kSpare;
      fault_ = folder_.path + ": there is no room on disk for the ends of what is promised";
    }
    measure();
    flusher_.emplace(GroupFlusher<Group>::Calls{.flush = [this] { return tables_->log().flush(); },
                                                .flushed = [this](Group& group) { told(group); },
                                                .lost = [this] { note_lost(); }});
    thread_ = std::thread([this] { work(); });
  }

  ~SqliteStore() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
    tables_.reset();
    if (disk_ == Disk::kWell || disk_ == Disk::kSpare) {
      folder_.note_closed();
    }
  }

  const std::vector<std::string>& notices() const override { return notices_; }
  const limit::Secret& secret() const override { return folder_.secret; }
  std::optional<JobId> last_id() const override { return last_id_; }
  int64_t newest_ms() const override { return newest_ms_; }
  int event_fd() const override { return event_.get(); }
  void set_max_bytes(int64_t bytes, int64_t of_a_share) override {
    max_bytes_ = static_cast<uint64_t>(bytes);
    max_share_bytes_ = of_a_share;
  }
  size_t pending() const override { return pending_; }
  size_t pending_bytes() const override { return pending_bytes_; }
  std::string result_path(const JobId& id) const override { return files_.path(id); }

  Status recover(const std::function<void(JobRecord&&)>& job,
                 const std::function<void(const std::string&)>& gone_url) override {
    std::vector<JobRecord> jobs;
    std::vector<std::string> gone_urls;
    std::vector<DamagedRow> damaged;
    const Status good = read_now([&] {
      return tables_->unfinished([&](JobRecord&& each) { jobs.push_back(std::move(each)); },
                                 damaged) &&
             tables_->deliveries().gone_urls(gone_urls);
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
    count_on();
    look_at_files(std::make_shared<ResultFiles::Round>(files_.round()));
    return Ok{};
  }

  Status unsettled(size_t most, const std::function<void(JobRecord&&)>& each) override {
    std::vector<JobRecord> jobs;
    const Status good = read_now([&] {
      return tables_->unsettled(most, [&](JobRecord&& job) { jobs.push_back(std::move(job)); });
    });
    for (JobRecord& job : jobs) {
      each(std::move(job));
    }
    return good;
  }
  Result<Orders> orders() override {
    Orders orders;
    const Status good = read_now([&] { return tables_->orders(orders); });
    return good ? Result<Orders>(std::move(orders)) : good.error();
  }
  void set_order(const std::string& name, std::optional<int64_t> value) override {
    write([this, name, value] { return tables_->set_order(name, value); });
  }

  void tell_done() override {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = ::read(event_.get(), &count, sizeof count);
    std::vector<Done> done;
    {
      const std::lock_guard lock(mutex_);
      done.swap(done_);
    }
    for (const Done& each : done) {
      pending_ -= each.asked ? 1 : 0;
      pending_bytes_ -= each.bytes;
    }
    for (const Done& each : done) {
      if (each.told) {
        each.told();
      }
    }
  }

  void promise(JobRecord job, std::string submit, std::function<void(Promise)> told) override {
    auto outcome = std::make_shared<Promise>(Promise::kBroken);
    auto undo = [this, id = job.id] {
      std::optional<JobRecord> record;
      return tables_->find(id, record) && (!record || forget(*record));
    };
    const size_t bytes = submit.size();
    ask({.kind = Op::kPromise,
         .bytes = bytes,
         .run = [this, job = std::move(job), submit = std::move(submit),
                 outcome] { return promise_now(job, submit, *outcome); },
         .told = [outcome, told = std::move(told)] { told(*outcome); },
         .broken = [outcome](bool full) { *outcome = full ? Promise::kFull : Promise::kBroken; },
         .undo = std::move(undo)});
  }

  void attempt(const JobId& id, uint32_t attempts, std::string code, std::string error) override {
    write([this, id, attempts, code = std::move(code), error = std::move(error)] {
      return tables_->set_attempt(id, attempts, code, error);
    });
  }

  void append_result(const JobId& id, uint64_t offset, std::string bytes) override {
    const size_t size = bytes.size();
    ask({.kind = Op::kWrite,
         .job = id,
         .part = true,
         .bytes = size,
         .run = [this, id, offset, bytes = std::move(bytes)] { return put(id, offset, bytes); }});
  }

  void discard_result(const JobId& id) override {
    ask({.kind = Op::kWrite, .job = id, .run = [this, id] {
           changes_.sealed.push_back(sequence_of(id));
           files_.remove(id);
           return true;
         }});
  }

  void finish(JobEnd end, uint64_t offset, std::string rest,
              std::function<void(const JobEnd&)> told) override {
    end_job(
        {std::move(end), offset, std::move(rest)}, [] { return true; }, std::move(told));
  }

  void keep(JobRecord job, uint64_t offset, std::string rest,
            std::function<void(const JobEnd&)> told) override {
    JobEnd end = job.end;
    job.status = JobStatus::kQueued;
    end_job(
        {std::move(end), offset, std::move(rest)},
        [this, job = std::move(job)] {
          bool duplicate = false;
          if (!tables_->insert(job, {}, duplicate)) {
            return false;
          }
          if (!duplicate) {
            charge({sequence_of(job.id), job.share.lo, JobTables::kRowBytes});
          }
          return true;
        },
        std::move(told));
  }

  void requeue(const JobId& id, int64_t deadline_ms,
               std::function<void(std::optional<JobRecord>)> told) override {
    read<std::optional<JobRecord>>(
        Op::kWrite,
        [this, id, deadline_ms](std::optional<JobRecord>& job) {
          const bool good = tables_->requeue(id, deadline_ms, job);
          changes_.dead -= good && job ? 1 : 0;
          return good;
        },
        std::move(told));
  }

  void drop(const JobId& id, std::function<void(bool)> told) override {
    read<bool>(
        Op::kWrite,
        [this, id](bool& dropped) {
          std::optional<JobRecord> job;
          if (!tables_->find(id, job)) {
            return false;
          }
          dropped = job && has_ended(job->status);
          return !dropped || forget(*job);
        },
        std::move(told));
  }

  void settled(uint64_t number) override {
    write([this, number] { return tables_->set_settled(number); });
  }
  void delivered(const JobId& id, uint32_t tries, int64_t due_ms) override {
    write([this, id, tries, due_ms] { return tables_->deliveries().set(id, tries, due_ms); });
  }

  void due(const DueQuery& query, std::function<void(DuePage)> told) override {
    read<DuePage>(
        Op::kRead, [this, query](DuePage& page) { return tables_->deliveries().due(query, page); },
        std::move(told));
  }
  void disable_url(std::string url) override {
    write([this, url = std::move(url)] { return tables_->deliveries().disable_url(url); });
  }

  // A transaction removes no more than some, so that promises need not wait for all of them.
  void sweep(int64_t now_ms) override {
    if (std::exchange(sweeping_, true)) {
      return;
    }
    const auto more = std::make_shared<bool>(false);
    write(
        [this, now_ms, more] {
          std::vector<JobRecord> jobs;
          std::vector<DamagedRow> damaged;
          bool good = tables_->expired(now_ms, kSweepRows, jobs, damaged);
          for (size_t i = 0; good && i < jobs.size(); ++i) {
            good = forget(jobs[i]);
          }
          for (size_t i = 0; good && i < damaged.size(); ++i) {
            good = tables_->erase_damaged(damaged[i]);
          }
          *more = jobs.size() + damaged.size() == kSweepRows;
          return good && tables_->shrink();
        },
        [this, now_ms, more] {
          sweeping_ = false;
          if (*more) {
            sweep(now_ms);
          }
        });
  }

  void clamp_expiries(int64_t now_ms) override {
    write([this, now_ms] { return tables_->clamp_expiries(now_ms); });
  }

  void fetch(const JobId& id, std::function<void(Result<std::string>)> told) override {
    read_blob(&JobTables::submit_of, id, "the request", std::move(told));
  }
  void read_result(const JobId& id, std::function<void(Result<std::string>)> told) override {
    read_blob(&JobTables::result_of, id, "the result", std::move(told));
  }
  void find(const JobId& id, std::function<void(std::optional<JobRecord>)> told) override {
    read<std::optional<JobRecord>>(
        Op::kRead, [this, id](auto& job) { return tables_->find(id, job); }, std::move(told));
  }
  void find_key(const limit::Hash128& key,
                std::function<void(std::optional<JobRecord>)> told) override {
    read<std::optional<JobRecord>>(
        Op::kRead, [this, key](auto& job) { return tables_->find_key(key, job); }, std::move(told));
  }
  void list(const JobQuery& query, std::function<void(JobPage)> told) override {
    read<JobPage>(
        Op::kRead, [this, query](auto& page) { return tables_->lists().list(query, page); },
        std::move(told));
  }

  Disk disk() const override { return disk_.load(std::memory_order_acquire); }
  Status health() const override {
    return disk() == Disk::kWell ? Status(Ok{}) : Status(Error{last_fault()});
  }
  std::string last_fault() const override {
    const std::lock_guard lock(mutex_);
    return fault_;
  }

  Figures figures() const override {
    return {.commits = commits_,
            .commit_ns = commit_ns_,
            .dead = dead_,
            .bytes = bytes_,
            .disk_bytes = disk_bytes_,
            .write_errors = write_errors_,
            .lost_results = lost_results_,
            .damaged_rows = damaged_rows_};
  }

 private:
  // Something to be done by the store's thread. `run` may be called again after a roll-back.
  struct Op {
    enum Kind : uint8_t {
      kRead,     // fails alone
      kWrite,    // is tried until it succeeds, or fails by itself too often
      kPromise,  // is tried once
    } kind = kRead;
    std::optional<JobId> job;  // kWrite: whose result it has to do with; they keep their order
    bool part = false;         // of a result, which is not wanted without the others
    size_t bytes = 0;          // that it holds in memory
    std::function<bool()> run;
    std::function<void()> told;
    std::function<void(bool full)> broken;  // kPromise
    std::function<bool()> undo;             // kPromise
    std::function<void()> lose{};           // an end: from now on, that of a job without a result
    bool asked = true;                      // else it is the store's own
  };
  // What somebody is to be told.
  struct Done {
    std::function<void()> told;
    bool asked = true;
    size_t bytes = 0;
  };
  // What a transaction changes beside the database.
  struct Changes {
    int64_t dead = 0;
    std::vector<JobId> gone;       // whose result files it leaves without a row
    std::vector<uint64_t> sealed;  // sequences of jobs that write no file any more
    std::vector<JobTables::Charge> charges;
    uint64_t counted_up_to = 0;
  };
  // What was one transaction.
  struct Group {
    std::vector<Op> ops;
    bool writes = false;
    int64_t begun_ns = 0;
    std::vector<JobId> gone;  // as in Changes
  };
  // An end, until it is written.
  struct Ending {
    JobEnd end;
    uint64_t offset = 0;
    std::string rest;

    void lose() {
      end.status = JobStatus::kFailed;
      end.http_status = 502;
      end.content_type.clear();
      end.error_code = "engine_failed";
      end.error = kResultLost;
      offset = 0;
      rest = {};
    }
  };
  // Operations of one job that failed by themselves.
  struct Held {
    std::vector<Op> ops;
    uint32_t tries = 0;
    std::string why;
  };

  void end_job(Ending ending, std::function<bool()> before,
               std::function<void(const JobEnd&)> told) {
    const auto shared = std::make_shared<Ending>(std::move(ending));
    ask({.kind = Op::kWrite,
         .job = shared->end.id,
         .bytes = shared->rest.size(),
         .run = [this, shared,
                 before = std::move(before)] { return before() && finish_now(*shared); },
         .told = [shared, told = std::move(told)] { told(shared->end); },
         .lose = [shared] { shared->lose(); }});
  }

  void ask(Op op) {
    ++pending_;
    pending_bytes_ += op.bytes;
    bool idle = false;
    {
      const std::lock_guard lock(mutex_);
      idle = inbox_.empty();
      inbox_.push_back(std::move(op));
    }
    if (idle) {
      wake_.notify_one();
    }
  }
  // At the start: reads by the store's thread, as the database is its own, and waits for it.
  Status read_now(const std::function<bool()>& run) {
    bool good = false;
    std::mutex mutex;
    std::condition_variable told;
    bool done = false;
    ask({.kind = Op::kRead, .run = [&] {
           good = run();
           const std::lock_guard lock(mutex);
           done = true;
           told.notify_one();
           return true;
         }});
    {
      std::unique_lock lock(mutex);
      told.wait(lock, [&] { return done; });
    }
    tell_done();
    return good ? Status(Ok{}) : Error{folder_.path + "/jobs.db: its jobs cannot be read"};
  }
  void write(std::function<bool()> run, std::function<void()> told = {}) {
    ask({.kind = Op::kWrite, .run = std::move(run), .told = std::move(told)});
  }
  template <typename T>
  void read(typename Op::Kind kind, std::function<bool(T&)> run, std::function<void(T)> told) {
    auto value = std::make_shared<T>();
    ask({.kind = kind,
         .run =
             [run = std::move(run), value] {
               *value = {};  // nothing of an earlier run
               return run(*value);
             },
         .told = [told = std::move(told), value] { told(std::move(*value)); }});
  }
  void read_blob(bool (JobTables::*get)(const JobId&, std::optional<std::string>&), const JobId& id,
                 std::string what, std::function<void(Result<std::string>)> told) {
    read<std::optional<std::string>>(
        Op::kRead, [this, get, id](auto& blob) { return (tables_.get()->*get)(id, blob); },
        [id, what = std::move(what), told = std::move(told)](std::optional<std::string> blob) {
          told(blob ? Result<std::string>(*std::move(blob))
                    : Error{what + " of " + std::string(id.view()) + " cannot be read from disk"});
        });
  }

  // ---- the store's thread ----

  bool promise_now(const JobRecord& job, const std::string& submit, Promise& outcome) {
    const int64_t bytes = static_cast<int64_t>(submit.size()) + JobTables::kRowBytes;
    const uint64_t whose = job.share.lo;
    const auto used = shares_.find(whose);
    const int64_t most = max_share_bytes_;
    if (bytes_ >= max_bytes_ || !reserve_.whole()) {
      outcome = Promise::kFull;
      return true;
    }
    if (most > 0 && bytes + (used == shares_.end() ? 0 : used->second) > most) {
      outcome = Promise::kShareFull;
      return true;
    }
    bool duplicate = false;
    const bool good = tables_->insert(job, submit, duplicate);
    outcome = duplicate ? Promise::kDuplicate : Promise::kStored;
    if (good && !duplicate) {
      charge({sequence_of(job.id), whose, bytes});
    }
    return good;
  }

  bool put(const JobId& id, uint64_t offset, std::string_view bytes) {
    const uint64_t sequence = sequence_of(id);
    if (spoiled_.contains(sequence)) {
      return true;
    }
    own_fault_ = files_.write(id, offset, bytes);
    open_files_[sequence] = offset + bytes.size();
    return !own_fault_;
  }

  bool finish_now(Ending& ending) {
    JobEnd& end = ending.end;
    if (end.status == JobStatus::kCompleted && spoiled_.contains(sequence_of(end.id))) {
      ending.lose();
    }
    const std::string& rest = ending.rest;
    const bool in_file = ending.offset > 0 || rest.size() > kInlineBytes;
    const uint64_t bytes = ending.offset + rest.size();
    bool changed = false;
    JobTables::Charge before, after;
    if (!tables_->charge_of(end.id, before) ||
        !tables_->finish(end, rest, bytes, in_file, changed)) {
      return false;
    }
    if (!changed) {
      return true;
    }
    if (in_file && ((!rest.empty() && !put(end.id, ending.offset, rest)) ||
                    (own_fault_ = files_.seal(end.id, bytes)))) {
      return false;
    }
    if (!tables_->charge_of(end.id, after)) {
      return false;
    }
    charge({after.seq, after.whose, after.bytes - before.bytes, after.file_bytes});
    if (!in_file && (end.attempts > 0 || end.status != JobStatus::kCompleted ||
                     open_files_.contains(sequence_of(end.id)))) {
      changes_.gone.push_back(end.id);  // what an attempt may have left
    }
    changes_.dead += end.dead ? 1 : 0;
    changes_.sealed.push_back(sequence_of(end.id));
    return true;
  }

  bool forget(const JobRecord& job) {
    JobTables::Charge had;
    if (!tables_->charge_of(job.id, had) || !tables_->erase(job)) {
      return false;
    }
    charge({had.seq, had.whose, -had.bytes, -had.file_bytes});
    changes_.dead -= job.end.dead ? 1 : 0;
    if (job.result_in_file) {
      changes_.gone.push_back(job.id);
    }
    return true;
  }

  // ---- what was there at the start ----

  // A promise that cannot be read is not passed over: it has failed.
  void end_damaged(std::vector<DamagedRow> rows) {
    for (const DamagedRow& row : rows) {
      log(Level::kError, "what is kept of promised job " + row.id + " (row " +
                             std::to_string(row.seq) + ") is damaged: it has failed");
    }
    damaged_rows_ += rows.size();
    if (!rows.empty()) {
      write([this, rows = std::move(rows)] {
        return std::all_of(rows.begin(), rows.end(), [this](const DamagedRow& row) {
          return tables_->end_damaged(row, realtime_ns() / kNsPerMs);
        });
      });
    }
  }

  // What each share takes is counted while others are served: jobs up to counted_up_to_, and those
  // that came since the start.
  void count_on() {
    const auto more = std::make_shared<bool>(false);
    ask({.kind = Op::kRead,
         .run =
             [this, more] {
               std::vector<JobTables::Charge> charges;
               const bool good = tables_->charges(changes_.counted_up_to, kRowsAtOnce, charges);
               *more = good && charges.size() == kRowsAtOnce && charges.back().seq < last_seq_;
               for (const JobTables::Charge& each : charges) {
                 if (each.seq <= last_seq_) {
                   changes_.counted_up_to = each.seq;
                   charge(each);
                 }
               }
               if (good && !*more) {
                 changes_.counted_up_to = last_seq_;
               }
               return good;
             },
         .told =
             [this, more] {
               if (*more) {
                 count_on();
               }
             }});
  }
  void charge(const JobTables::Charge& charge) {
    if (charge.seq <= changes_.counted_up_to || charge.seq > last_seq_) {
      changes_.charges.push_back(charge);
      add(charge, 1);
    }
  }
  void add(const JobTables::Charge& charge, int64_t times) {
    file_bytes_ += times * charge.file_bytes;
    if ((shares_[charge.whose] += times * charge.bytes) == 0) {
      shares_.erase(charge.whose);
    }
  }
  void restore(Changes&& before) {
    for (size_t i = before.charges.size(); i < changes_.charges.size(); ++i) {
      add(changes_.charges[i], -1);
    }
    changes_ = std::move(before);
  }

  // Files that no job tells of are removed while others are served. Those of jobs that came since
  // may be told of later.
  void look_at_files(std::shared_ptr<ResultFiles::Round> round) {
    const auto more = std::make_shared<bool>(false);
    ask({.kind = Op::kRead,
         .run =
             [this, round, more] {
               *more = round->look(kFilesAtOnce, [this](const JobId& id) {
                 const uint64_t sequence = sequence_of(id);
                 return sequence > last_seq_ || open_files_.contains(sequence) ||
                        tables_->has_result_file(id);
               });
               return true;
             },
         .told =
             [this, round, more] {
               if (*more) {
                 look_at_files(round);
               }
             }});
  }

  // ---- groups ----

  void work() {
    for (bool last = false; !last;) {
      std::vector<Op> ops;
      {
        std::unique_lock lock(mutex_);
        const auto ready = [this] { return stopping_ || !inbox_.empty() || newly_lost_; };
        if (backlog_.empty() && held_.empty() && disk_ == Disk::kWell) {
          wake_.wait(lock, ready);
        } else {
          wake_.wait_for(lock, retry_, ready);
        }
        newly_lost_ = false;
        last = stopping_ && inbox_.empty();
        ops.swap(inbox_);
      }
      turn(std::move(ops), last);
    }
    if (!flusher_->drain()) {
      turn({}, true);  // the last try
    }
    if (flusher_->drain()) {
      tables_->checkpoint();
    }
  }

  void turn(std::vector<Op> ops, bool last) {
    const int64_t now_ns = monotonic_ns();
    const bool may_try = last || now_ns >= rewrite_ns_;
    if (disk_ == Disk::kLost && !(may_try && put_right())) {
      return set_aside(ops, false);
    }
    if (!reserve_.whole() && now_ns >= reserve_ns_) {
      reserve_ns_ = now_ns + std::chrono::nanoseconds(retry_).count();
      if (reserve_.take() && disk_ == Disk::kSpare) {
        become(Disk::kWell);
      }
    }
    if (!backlog_.empty()) {  // in the order it was asked
      backlog_.insert(backlog_.end(), std::make_move_iterator(ops.begin()),
                      std::make_move_iterator(ops.end()));
      ops = std::exchange(backlog_, {});
    }
    if (held_.empty()) {
      return group(std::move(ops));
    }
    if (last || now_ns >= held_ns_) {
      held_ns_ = now_ns + std::chrono::nanoseconds(retry_).count();
      std::vector<Op> again;
      for (auto& [job, held] : held_) {
        std::move(held.ops.begin(), held.ops.end(), std::back_inserter(again));
        held.ops.clear();
      }
      ops.insert(ops.begin(), std::make_move_iterator(again.begin()),
                 std::make_move_iterator(again.end()));
    }
    one_by_one(std::move(ops));
  }

  // All of them in one transaction.
  void group(std::vector<Op> ops) {
    if (ops.empty()) {
      return;
    }
    const bool writes =
        std::any_of(ops.begin(), ops.end(), [](const Op& op) { return op.kind != Op::kRead; });
    changes_ = {.counted_up_to = counted_up_to_};
    own_fault_ = {};
    const int64_t begun_ns = monotonic_ns();
    bool good = !writes || tables_->begin();
    for (size_t i = 0; good && i < ops.size(); ++i) {
      good = ops[i].run() || ops[i].kind == Op::kRead;
    }
    good = good && (!writes || tables_->commit());
    if (good) {
      return committed(std::move(ops), writes, begun_ns);
    }
    const Fault fault = what_failed();
    if (!fault.own) {
      return fail(ops, fault);
    }
    roll_back();
    one_by_one(std::move(ops));
  }

  // The same, but that an operation which fails by itself does not fail the others.
  void one_by_one(std::vector<Op> ops) {
    changes_ = {.counted_up_to = counted_up_to_};
    const int64_t begun_ns = monotonic_ns();
    std::vector<Op> done;
    Fault fault;
    bool good = tables_->begin();
    if (!good) {
      fault = tables_->fault();
    }
    for (Op& op : ops) {
      if (is_held(op)) {
        hold(std::move(op));
        continue;
      }
      if (good && !(good = run_alone(op, fault)) && fault.own) {
        good = true;
        if (op.kind == Op::kPromise) {
          op.broken(false);
        } else if (op.job) {
          note_own_fault(*op.job, fault);
          hold(std::move(op));
          continue;
        } else {
          log(Level::kError, "given up: " + fault.what);
        }
      }
      done.push_back(std::move(op));
    }
    if (!good || !tables_->commit()) {
      return fail(done, good ? tables_->fault() : fault);
    }
    committed(std::move(done), true, begun_ns);
    give_up_some();
  }
  // False: it has left nothing behind if the fault is its own; else the transaction is over.
  bool run_alone(Op& op, Fault& fault) {
    Changes before = changes_;
    own_fault_ = fault = {};
    if (tables_->savepoint() && (op.run() || op.kind == Op::kRead) && tables_->release()) {
      return true;
    }
    fault = what_failed();
    restore(std::move(before));
    if (fault.own && !tables_->undo()) {
      fault = tables_->fault();
      fault.own = false;
    }
    return false;
  }
  Fault what_failed() { return own_fault_ ? own_fault_ : tables_->fault(); }

  // What comes behind an operation of the same job that is held waits, too.
  bool is_held(const Op& op) const {
    const auto held = op.job ? held_.find(sequence_of(*op.job)) : held_.end();
    return held != held_.end() && !held->second.ops.empty();
  }
  void hold(Op&& op) { held_[sequence_of(*op.job)].ops.push_back(std::move(op)); }
  // Of what passes by itself, no try is counted.
  void note_own_fault(const JobId& id, const Fault& fault) {
    Held& held = held_[sequence_of(id)];
    held.tries += fault.kind == Fault::Kind::kBusy ? 0 : 1;
    held.why = fault.what;
    if (held.tries == 1) {
      log(Level::kWarn, "the result of job " + std::string(id.view()) +
                            " cannot be stored, and is tried again: " + fault.what);
    }
  }
  // Those that have failed too often: their job's end is written without a result. If it has not
  // ended yet, whoever runs it is told.
  void give_up_some() {
    for (auto each = held_.begin(); each != held_.end();) {
      Held& held = each->second;
      if (!held.ops.empty() && held.tries < file_tries_) {
        ++each;
        continue;
      }
      if (!held.ops.empty()) {
        give_up(each->first, held);
      }
      each = held_.erase(each);
    }
  }
  void give_up(uint64_t sequence, Held& held) {
    const JobId id = *held.ops.front().job;
    ++lost_results_;
    spoiled_.insert(sequence);
    std::vector<Op> over;
    for (Op& op : held.ops) {
      if (op.lose) {
        op.lose();
      }
      (op.part ? over : backlog_).push_back(std::move(op));
    }
    over.push_back({.told =
                        [this, id, why = held.why] {
                          if (on_lost_result) {
                            on_lost_result(id, why);
                          }
                        },
                    .asked = false});
    hand_back(over);
  }

  void committed(std::vector<Op> ops, bool writes, int64_t begun_ns) {
    settle();
    if (disk_ == Disk::kBroken) {
      become(reserve_.whole() ? Disk::kWell : Disk::kSpare);
    }
    const bool alone = is_idle();
    flusher_->add({.ops = std::move(ops),
                   .writes = writes,
                   .begun_ns = begun_ns,
                   .gone = std::exchange(changes_.gone, {})},
                  alone);
    if (writes && tables_->log().pages() * kPageBytes > log_bytes_ / kLogParts * (kLogParts - 1) &&
        monotonic_ns() >= checkpoint_ns_ && flusher_->drain()) {
      checkpoint();
    }
  }
  // Without room for it in the database the log would grow: nothing more is promised until then.
  void checkpoint() {
    const bool good = tables_->checkpoint();
    if (good && disk_ == Disk::kStuck) {
      become(reserve_.whole() ? Disk::kWell : Disk::kSpare);
    }
    if (!good) {
      become(Disk::kStuck);
      note_fault(tables_->fault().what);
      checkpoint_ns_ = monotonic_ns() + std::chrono::nanoseconds(retry_).count();
    }
  }
  bool is_idle() {
    const std::lock_guard lock(mutex_);
    return inbox_.empty();
  }

  // What the transaction has changed beside the database.
  void settle() {
    dead_ += static_cast<uint64_t>(changes_.dead);
    counted_up_to_ = changes_.counted_up_to;
    for (const uint64_t sequence : changes_.sealed) {
      open_files_.erase(sequence);
      spoiled_.erase(sequence);
    }
    measure();
  }
  // Results, and those that are being written.
  void measure() {
    int64_t files = file_bytes_;
    for (const auto& [sequence, bytes] : open_files_) {
      files += static_cast<int64_t>(bytes);
    }
    const auto in_files = static_cast<uint64_t>(std::max<int64_t>(files, 0));
    bytes_ = in_files + tables_->bytes();
    disk_bytes_ = in_files + tables_->disk_bytes() + reserve_.bytes();
  }
  // But that a flush has failed is not forgotten before put_right().
  void become(Disk next) {
    Disk now = disk_;
    while (now != Disk::kLost && !disk_.compare_exchange_weak(now, next)) {
    }
  }
  void roll_back() {
    tables_->roll_back();
    restore({.counted_up_to = counted_up_to_});
  }

  // The transaction could not be committed. The commit may have reached the disk all the same:
  // what it would promise is taken back.
  void fail(std::vector<Op>& ops, const Fault& fault) {
    const bool full = fault.kind == Fault::Kind::kNoSpace;
    note_fault(fault.what);
    roll_back();
    if (full) {
      reserve_.give_up();
    }
    become(Disk::kBroken);
    flusher_->drain();  // so that all are told in order
    set_aside(ops, full);
  }

  // Promises are told that they are none, reads are done alone, and all else waits for the next
  // try. Reads, too, while nobody knows what of it is on disk.
  void set_aside(std::vector<Op>& ops, bool full) {
    std::vector<Op> over;
    for (Op& op : ops) {
      if (op.kind == Op::kWrite || (op.kind == Op::kRead && disk_ == Disk::kLost)) {
        backlog_.push_back(std::move(op));
        continue;
      }
      if (op.kind == Op::kRead) {
        op.run();
        settle();
      } else {
        break_promise(op, full);
      }
      over.push_back(std::move(op));
    }
    hand_back(over);
  }
  void break_promise(Op& op, bool full) {
    op.broken(full);
    backlog_.push_back({.kind = Op::kWrite, .run = std::move(op.undo), .asked = false});
  }

  // The log could not be flushed: its last transactions are in the database as we see it, and
  // nobody knows whether they are on disk. Writes it once more; if that fails, what they promised
  // is taken back, and whoever asked for all else is told once it is safe.
  bool put_right() {
    for (Group& group : flusher_->take_lost()) {
      unsafe_.push_back(std::move(group));
    }
    if (!tables_->log().rewrite()) {
      note_fault("writing jobs failed: their log cannot be written again");
      rewrite_ns_ = monotonic_ns() + std::chrono::nanoseconds(retry_).count();
      break_unsafe_promises();
      return false;
    }
    disk_ = reserve_.whole() ? Disk::kWell : Disk::kSpare;
    flusher_->resume();
    for (Group& group : unsafe_) {
      told(group);
    }
    unsafe_.clear();
    return true;
  }
  // What was read is read again, after they were taken back.
  void break_unsafe_promises() {
    std::vector<Op> over;
    for (Group& group : unsafe_) {
      std::vector<Op> writes;
      for (Op& op : group.ops) {
        if (op.kind == Op::kPromise) {
          break_promise(op, false);
          over.push_back(std::move(op));
        } else {
          (op.kind == Op::kRead ? backlog_ : writes).push_back(std::move(op));
        }
      }
      group.ops = std::move(writes);
    }
    hand_back(over);
  }

  void note_fault(std::string what) {
    const std::lock_guard lock(mutex_);
    fault_ = std::move(what);
    ++write_errors_;
  }

  // ---- the flusher's thread, or the store's ----

  void told(Group& group) {
    if (group.writes) {
      commits_ += 1;
      commit_ns_ += static_cast<uint64_t>(monotonic_ns() - group.begun_ns);
    }
    for (const JobId& id : group.gone) {
      files_.remove(id);
    }
    hand_back(group.ops);
  }

  void note_lost() {
    note_fault("writing jobs failed: their log cannot be flushed to disk");
    {
      const std::lock_guard lock(mutex_);
      newly_lost_ = true;
      disk_ = Disk::kLost;
    }
    wake_.notify_one();
  }

  void hand_back(std::vector<Op>& ops) {
    bool idle = false;
    {
      const std::lock_guard lock(mutex_);
      idle = done_.empty();
      for (Op& op : ops) {
        if (op.asked || op.told) {
          done_.push_back({std::move(op.told), op.asked, op.bytes});
        }
      }
    }
    if (idle) {
      constexpr uint64_t kOne = 1;
      [[maybe_unused]] const ssize_t n = ::write(event_.get(), &kOne, sizeof kOne);
    }
  }

  std::atomic<uint64_t> max_bytes_;
  std::atomic<int64_t> max_share_bytes_;
  const std::chrono::milliseconds retry_;
  const uint64_t log_bytes_;
  const uint32_t file_tries_;
  StateFolder folder_;
  ResultFiles files_;
  std::unique_ptr<JobTables> tables_;  // the store's thread's, once it runs
  std::vector<std::string> notices_;
  Fd event_;
  std::optional<JobId> last_id_;
  uint64_t last_seq_ = 0;
  int64_t newest_ms_ = 0;
  size_t pending_ = 0;  // the owner's thread's, as are:
  size_t pending_bytes_ = 0;
  bool sweeping_ = false;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Op> inbox_;    // guarded by mutex_
  std::vector<Done> done_;   // guarded by mutex_
  std::string fault_;        // guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_
  bool newly_lost_ = false;  // guarded by mutex_
  std::atomic<Disk> disk_{Disk::kWell};
  std::atomic<uint64_t> commits_{0};
  std::atomic<uint64_t> commit_ns_{0};
  std::atomic<uint64_t> dead_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> disk_bytes_{0};
  std::atomic<uint64_t> write_errors_{0};
  std::atomic<uint64_t> lost_results_{0};
  std::atomic<uint64_t> damaged_rows_{0};

  // The store's thread's:
  std::vector<Op> backlog_;    // writes that are tried again
  std::vector<Group> unsafe_;  // written, but not safe: see put_right()
  int64_t checkpoint_ns_ = 0;  // not before
  int64_t rewrite_ns_ = 0;     // of the log: not before
  int64_t held_ns_ = 0;        // what is held: not before
  int64_t reserve_ns_ = 0;     // likewise
  Reserve reserve_;
  std::map<uint64_t, Held> held_;                 // by sequence, as are:
  std::set<uint64_t> spoiled_;                    // jobs whose result is not stored, whatever comes
  std::map<uint64_t, uint64_t> open_files_;       // bytes of results that are being written
  int64_t file_bytes_ = 0;                        // of results that are whole
  std::unordered_map<uint64_t, int64_t> shares_;  // what each takes of the state
  uint64_t counted_up_to_ = 0;                    // see count_on()
  Changes changes_;                               // of the transaction
  Fault own_fault_;                               // of the operation that ran last
  std::optional<GroupFlusher<Group>> flusher_;
  std::thread thread_;
};

}  // namespace

Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const Options& options) {
  auto folder = StateFolder::open(options.folder, options.group,
                                  options.files != nullptr ? *options.files : FileCalls::system());
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
  folder->note_open();
  if (Status flushed = folder->flush(); !flushed) {
    return flushed.error();
  }
  return std::unique_ptr<Store>(std::make_unique<SqliteStore>(
      options, *std::move(folder), *std::move(files), *std::move(tables), std::move(notices)));
}

}  // namespace penstock::queue
