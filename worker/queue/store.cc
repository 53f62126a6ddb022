#include "worker/queue/store.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "shared/base/clock.h"
#include "worker/queue/group_flusher.h"
#include "worker/queue/job_tables.h"
#include "worker/queue/result_files.h"
#include "worker/queue/state_folder.h"

namespace penstock::queue {
namespace {

constexpr uint32_t kSweepRows = 200;
constexpr uint64_t kPageBytes = 4096;
// So many parts of the log's length are used before it is moved into the database.
constexpr uint64_t kLogParts = 8;

class SqliteStore final : public Store {
 public:
  SqliteStore(const Options& options, StateFolder folder, ResultFiles files,
              std::unique_ptr<JobTables> tables, std::vector<std::string> notices)
      : max_bytes_(static_cast<uint64_t>(options.max_bytes)),
        retry_(options.retry_ms),
        log_bytes_(options.log_bytes),
        folder_(std::move(folder)),
        files_(std::move(files)),
        tables_(std::move(tables)),
        notices_(std::move(notices)),
        event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    last_id_ = tables_->last_id();
    dead_ = tables_->count_dead();
    file_bytes_ = files_.sweep([this](const JobId& id) { return tables_->has_result_file(id); });
    measure();
    flusher_.emplace(GroupFlusher<Group>::Calls{.flush = [this] { return tables_->flush(); },
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
  }

  const std::vector<std::string>& notices() const override { return notices_; }
  const limit::Secret& secret() const override { return folder_.secret; }
  std::optional<JobId> last_id() const override { return last_id_; }
  int event_fd() const override { return event_.get(); }
  void set_max_bytes(int64_t bytes) override { max_bytes_ = static_cast<uint64_t>(bytes); }
  size_t pending() const override { return pending_; }
  std::string result_path(const JobId& id) const override { return files_.path(id); }

  Status recover(const std::function<void(JobRecord&&)>& job,
                 const std::function<void(const std::string&)>& gone_url) override {
    std::vector<JobRecord> jobs;
    std::vector<std::string> gone_urls;
    const Status good = read_now([&] {
      return tables_->unfinished([&](JobRecord&& each) { jobs.push_back(std::move(each)); }) &&
             tables_->gone_urls(gone_urls);
    });
    if (!good) {
      return good;
    }
    for (JobRecord& each : jobs) {
      job(std::move(each));
    }
    for (const std::string& each : gone_urls) {
      gone_url(each);
    }
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
    std::vector<std::function<void()>> done;
    {
      const std::lock_guard lock(mutex_);
      done.swap(done_);
    }
    pending_ -= done.size();
    for (const auto& tell : done) {
      if (tell) {
        tell();
      }
    }
  }

  void promise(JobRecord job, std::string submit, std::function<void(Promise)> told) override {
    auto outcome = std::make_shared<Promise>(Promise::kBroken);
    auto undo = [this, id = job.id] {
      std::optional<JobRecord> record;
      return tables_->find(id, record) && (!record || forget(*record));
    };
    ask({.kind = Op::kPromise,
         .run =
             [this, job = std::move(job), submit = std::move(submit), outcome] {
               if (bytes_ >= max_bytes_) {
                 *outcome = Promise::kFull;
                 return true;
               }
               bool duplicate = false;
               const bool good = tables_->insert(job, submit, duplicate);
               *outcome = duplicate ? Promise::kDuplicate : Promise::kStored;
               return good;
             },
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
    write([this, id, offset, bytes = std::move(bytes)] { return put(id, offset, bytes); });
  }

  void discard_result(const JobId& id) override {
    write([this, id] {
      files_.remove(id);
      return true;
    });
  }

  void finish(JobEnd end, uint64_t offset, std::string rest, std::function<void()> told) override {
    write([this, end = std::move(end), offset,
           rest = std::move(rest)] { return finish_now(end, offset, rest); },
          std::move(told));
  }

  void keep(JobRecord job, uint64_t offset, std::string rest, std::function<void()> told) override {
    write(
        [this, job = std::move(job), offset, rest = std::move(rest)] {
          JobRecord fresh = job;
          fresh.status = JobStatus::kQueued;
          bool duplicate = false;
          return tables_->insert(fresh, {}, duplicate) &&
                 (duplicate || finish_now(job.end, offset, rest));
        },
        std::move(told));
  }

  void requeue(const JobId& id, int64_t deadline_ms,
               std::function<void(std::optional<JobRecord>)> told) override {
    read<std::optional<JobRecord>>(
        Op::kWrite,
        [this, id, deadline_ms](std::optional<JobRecord>& job) {
          const bool good = tables_->requeue(id, deadline_ms, job);
          group_dead_ -= good && job ? 1 : 0;
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
    write([this, id, tries, due_ms] { return tables_->set_delivery(id, tries, due_ms); });
  }

  void due(const DueQuery& query, std::function<void(DuePage)> told) override {
    read<DuePage>(
        Op::kRead, [this, query](DuePage& page) { return tables_->due(query, page); },
        std::move(told));
  }
  void disable_url(std::string url) override {
    write([this, url = std::move(url)] { return tables_->disable_url(url); });
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
          bool good = tables_->expired(now_ms, kSweepRows, jobs);
          for (size_t i = 0; good && i < jobs.size(); ++i) {
            good = forget(jobs[i]);
          }
          *more = jobs.size() == kSweepRows;
          return good;
        },
        [this, now_ms, more] {
          sweeping_ = false;
          if (*more) {
            sweep(now_ms);
          }
        });
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
  void list(const Query& query, std::function<void(std::vector<JobRecord>)> told) override {
    read<std::vector<JobRecord>>(
        Op::kRead, [this, query](auto& jobs) { return tables_->list(query, jobs); },
        std::move(told));
  }

  Status health() const override {
    return broken_.load(std::memory_order_acquire) || lost_.load(std::memory_order_acquire) ||
                   stuck_.load(std::memory_order_acquire)
               ? Status(Error{last_fault()})
               : Status(Ok{});
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
            .write_errors = write_errors_};
  }

 private:
  // Something to be done by the store's thread. `run` may be called again after a roll-back.
  struct Op {
    enum Kind : uint8_t {
      kRead,     // fails alone
      kWrite,    // is tried until it succeeds
      kPromise,  // is tried once
    } kind = kRead;
    std::function<bool()> run;
    std::function<void()> told;
    std::function<void(bool full)> broken;  // kPromise
    std::function<bool()> undo;             // kPromise
    bool asked = true;                      // else it is the store's own
  };
  // What was one transaction.
  struct Group {
    std::vector<Op> ops;
    bool writes = false;
    int64_t begun_ns = 0;
    std::vector<JobId> gone;  // whose result files it has left without a row
  };

  void ask(Op op) {
    ++pending_;
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

  bool put(const JobId& id, uint64_t offset, std::string_view bytes) {
    const Status written = files_.write(id, offset, bytes);
    if (!written) {
      file_fault_ = written.error().message;
    }
    return static_cast<bool>(written);
  }

  bool finish_now(const JobEnd& end, uint64_t offset, const std::string& rest) {
    const bool in_file = offset > 0 || rest.size() > kInlineBytes;
    const uint64_t bytes = offset + rest.size();
    bool changed = false;
    if (!tables_->finish(end, rest, bytes, in_file, changed)) {
      return false;
    }
    if (!changed) {
      return true;
    }
    if (in_file) {
      const bool all = rest.empty() || put(end.id, offset, rest);
      const Status sealed = all ? files_.seal(end.id, bytes) : Status(Ok{});
      if (!sealed) {
        file_fault_ = sealed.error().message;
      }
      if (!all || !sealed) {
        return false;
      }
    }
    if (!in_file && (end.attempts > 0 || end.status != JobStatus::kCompleted)) {
      gone_.push_back(end.id);  // what an attempt may have left
    }
    group_file_bytes_ += in_file ? static_cast<int64_t>(bytes) : 0;
    group_dead_ += end.dead ? 1 : 0;
    return true;
  }

  bool forget(const JobRecord& job) {
    if (!tables_->erase(job.id, job.owner)) {
      return false;
    }
    group_dead_ -= job.end.dead ? 1 : 0;
    if (job.result_in_file) {
      group_file_bytes_ -= static_cast<int64_t>(job.result_bytes);
      gone_.push_back(job.id);
    }
    return true;
  }

  void work() {
    for (bool last = false; !last;) {
      std::vector<Op> ops;
      {
        std::unique_lock lock(mutex_);
        const auto ready = [this] { return stopping_ || !inbox_.empty() || newly_lost_; };
        if (backlog_.empty() && !lost_) {
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
    const bool may_try = last || monotonic_ns() >= rewrite_ns_;
    if (lost_ && !(may_try && put_right())) {
      return set_aside(ops, false);
    }
    if (!backlog_.empty()) {  // in the order it was asked
      backlog_.insert(backlog_.end(), std::make_move_iterator(ops.begin()),
                      std::make_move_iterator(ops.end()));
      ops = std::exchange(backlog_, {});
    }
    group(std::move(ops));
  }

  // All of them in one transaction.
  void group(std::vector<Op> ops) {
    if (ops.empty()) {
      return;
    }
    const bool writes =
        std::any_of(ops.begin(), ops.end(), [](const Op& op) { return op.kind != Op::kRead; });
    group_file_bytes_ = group_dead_ = 0;
    gone_.clear();
    file_fault_.clear();
    const int64_t begun_ns = monotonic_ns();
    bool good = !writes || tables_->begin();
    for (size_t i = 0; good && i < ops.size(); ++i) {
      good = ops[i].run() || ops[i].kind == Op::kRead;
    }
    good = good && (!writes || tables_->commit());
    if (!good) {
      return fail(ops);
    }
    if (writes) {
      settle();
    }
    broken_.store(false, std::memory_order_release);
    const bool alone = is_idle();
    flusher_->add({.ops = std::move(ops),
                   .writes = writes,
                   .begun_ns = begun_ns,
                   .gone = std::exchange(gone_, {})},
                  alone);
    if (writes && tables_->log_pages() * kPageBytes > log_bytes_ / kLogParts * (kLogParts - 1) &&
        monotonic_ns() >= checkpoint_ns_ && flusher_->drain()) {
      checkpoint();
    }
  }
  // Without room for it in the database the log would grow: nothing more is promised until then.
  void checkpoint() {
    const bool good = tables_->checkpoint();
    stuck_.store(!good, std::memory_order_release);
    if (!good) {
      note_fault(tables_->error().message);
      checkpoint_ns_ = monotonic_ns() + std::chrono::nanoseconds(retry_).count();
    }
  }
  bool is_idle() {
    const std::lock_guard lock(mutex_);
    return inbox_.empty();
  }

  // What the transaction has changed beside the database.
  void settle() {
    file_bytes_ = static_cast<uint64_t>(static_cast<int64_t>(file_bytes_) + group_file_bytes_);
    dead_ += static_cast<uint64_t>(group_dead_);
    measure();
  }
  void measure() { bytes_ = file_bytes_ + tables_->bytes(); }

  // The transaction could not be committed. The commit may have reached the disk all the same:
  // what it would promise is taken back.
  void fail(std::vector<Op>& ops) {
    const bool full = tables_->full();
    note_fault(file_fault_.empty() ? tables_->error().message : file_fault_);
    tables_->roll_back();
    broken_.store(true, std::memory_order_release);
    flusher_->drain();  // so that all are told in order
    set_aside(ops, full);
  }

  // Promises are told that they are none, reads are done alone, and all else waits for the next
  // try. Reads, too, while nobody knows what of it is on disk.
  void set_aside(std::vector<Op>& ops, bool full) {
    std::vector<Op> over;
    for (Op& op : ops) {
      if (op.kind == Op::kWrite || (op.kind == Op::kRead && lost_)) {
        backlog_.push_back(std::move(op));
        continue;
      }
      if (op.kind == Op::kRead) {
        op.run();
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
    if (!tables_->rewrite_log()) {
      note_fault("writing jobs failed: their log cannot be written again");
      rewrite_ns_ = monotonic_ns() + std::chrono::nanoseconds(retry_).count();
      break_unsafe_promises();
      return false;
    }
    flusher_->resume();
    lost_.store(false, std::memory_order_release);
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
      lost_.store(true, std::memory_order_release);
    }
    wake_.notify_one();
  }

  void hand_back(std::vector<Op>& ops) {
    bool idle = false;
    {
      const std::lock_guard lock(mutex_);
      idle = done_.empty();
      for (Op& op : ops) {
        if (op.asked) {
          done_.push_back(std::move(op.told));
        }
      }
    }
    if (idle) {
      constexpr uint64_t kOne = 1;
      [[maybe_unused]] const ssize_t n = ::write(event_.get(), &kOne, sizeof kOne);
    }
  }

  std::atomic<uint64_t> max_bytes_;
  const std::chrono::milliseconds retry_;
  const uint64_t log_bytes_;
  StateFolder folder_;
  ResultFiles files_;
  std::unique_ptr<JobTables> tables_;  // the store's thread's, once it runs
  std::vector<std::string> notices_;
  Fd event_;
  std::optional<JobId> last_id_;
  size_t pending_ = 0;     // the owner's thread's
  bool sweeping_ = false;  // likewise

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Op> inbox_;                    // guarded by mutex_
  std::vector<std::function<void()>> done_;  // guarded by mutex_
  std::string fault_;                        // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  bool newly_lost_ = false;                  // guarded by mutex_
  std::atomic<bool> broken_{false};          // the last transaction could not be written
  std::atomic<bool> lost_{false};            // the log could not be flushed
  std::atomic<bool> stuck_{false};           // nor moved into the database
  std::atomic<uint64_t> commits_{0};
  std::atomic<uint64_t> commit_ns_{0};
  std::atomic<uint64_t> dead_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> write_errors_{0};

  // The store's thread's:
  std::vector<Op> backlog_;    // writes that are tried again
  std::vector<Group> unsafe_;  // written, but not safe: see put_right()
  int64_t checkpoint_ns_ = 0;  // not before
  int64_t rewrite_ns_ = 0;     // of the log: not before
  uint64_t file_bytes_ = 0;
  int64_t group_file_bytes_ = 0;
  int64_t group_dead_ = 0;
  std::vector<JobId> gone_;  // whose result files the transaction has left without a row
  std::string file_fault_;
  std::optional<GroupFlusher<Group>> flusher_;
  std::thread thread_;
};

}  // namespace

Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const Options& options) {
  auto folder = StateFolder::open(options.folder, options.group);
  if (!folder) {
    return folder.error();
  }
  std::vector<std::string> notices;
  auto tables = JobTables::open(folder->path + "/jobs.db", options.vfs, options.log_bytes, notices);
  if (!tables) {
    return tables.error();
  }
  auto files = ResultFiles::open(folder->path + "/results", folder->group);
  if (!files) {
    return files.error();
  }
  if (Status flushed = folder->flush(); !flushed) {
    return flushed.error();
  }
  return std::unique_ptr<Store>(std::make_unique<SqliteStore>(
      options, *std::move(folder), *std::move(files), *std::move(tables), std::move(notices)));
}

}  // namespace penstock::queue
