#include "worker/queue/store/write_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "shared/base/clock.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kPageBytes = 4096;
// So many parts of the log's length are used before it is moved into the database.
constexpr uint64_t kLogParts = 8;

void append(std::vector<Operation>& to, std::vector<Operation>&& more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

}  // namespace

WriteQueue::WriteQueue(StoredJobs& jobs, DiskState& disk, Options options)
    : jobs_(jobs),
      disk_(disk),
      options_(std::move(options)),
      event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      held_(options_.file_tries) {
  flusher_.emplace(
      GroupFlusher<Group>::Calls{.flush = [this] { return jobs_.tables().log().flush(); },
                                 .on_flushed = [this](Group& group) { on_flushed(group); },
                                 .on_failed = [this] { on_flush_failed(); }});
  thread_ = std::thread([this] { work(); });
}

WriteQueue::~WriteQueue() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void WriteQueue::ask(Operation op) {
  ++pending_;
  pending_bytes_ += op.bytes;
  bool idle = false;
  {
    const MutexLock lock(mutex_);
    idle = inbox_.empty();
    inbox_.push_back(std::move(op));
  }
  if (idle) {
    wake_.notify_one();
  }
}

bool WriteQueue::ask_and_wait(const std::function<bool()>& run) {
  bool good = false;
  Mutex mutex;
  CondVar ran;
  bool done = false;
  ask({.kind = Operation::kRead, .run = [&] {
         good = run();
         const MutexLock lock(mutex);
         done = true;
         ran.notify_one();
         return true;
       }});
  {
    const MutexLock lock(mutex);
    while (!done) {
      ran.wait(mutex);
    }
  }
  tell_done();
  return good;
}

void WriteQueue::tell_done() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(event_.get(), &count, sizeof count);
  std::vector<Done> done;
  {
    const MutexLock lock(mutex_);
    done.swap(done_);
  }
  for (const Done& each : done) {
    pending_ -= each.asked ? 1 : 0;
    pending_bytes_ -= each.bytes;
  }
  for (const Done& each : done) {
    if (each.on_done) {
      each.on_done();
    }
  }
}

void WriteQueue::work() {
  for (bool last = false; !last;) {
    std::vector<Operation> ops;
    {
      const MutexLock lock(mutex_);
      wait_for_more();
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
    jobs_.tables().checkpoint();
  }
}

// Or until it is time to try again.
void WriteQueue::wait_for_more() {
  const bool all_well = backlog_.empty() && held_.empty() && disk_.now() == Disk::kWell;
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.retry_ms);
  bool in_time = true;
  while (in_time && !stopping_ && inbox_.empty() && !newly_lost_) {
    if (all_well) {
      wake_.wait(mutex_);
    } else {
      in_time = wake_.wait_until(mutex_, until);
    }
  }
}

// Those that run outside of transactions, before the others that were asked with them.
void WriteQueue::run_apart(std::vector<Operation>& ops) {
  const auto apart = std::stable_partition(
      ops.begin(), ops.end(), [](const Operation& op) { return op.kind != Operation::kApart; });
  std::vector<Operation> over(std::make_move_iterator(apart), std::make_move_iterator(ops.end()));
  ops.erase(apart, ops.end());
  for (Operation& op : over) {
    op.run();
  }
  if (!over.empty()) {
    hand_back(over);
  }
}

void WriteQueue::turn(std::vector<Operation> ops, bool last) {
  run_apart(ops);
  const int64_t now_ns = monotonic_ns();
  const bool may_try = last || now_ns >= rewrite_ns_;
  if (disk_.now() == Disk::kLost && !(may_try && rewrite_lost())) {
    return set_aside(ops, false);
  }
  if (!disk_.reserve().whole() && now_ns >= reserve_ns_) {
    reserve_ns_ = later_ns();
    if (disk_.reserve().take() && disk_.now() == Disk::kSpare) {
      disk_.become_well();
    }
  }
  if (!backlog_.empty()) {  // in the order it was asked
    append(backlog_, std::move(ops));
    ops = std::exchange(backlog_, {});
  }
  if (held_.empty()) {
    return group(std::move(ops));
  }
  if (last || now_ns >= held_ns_) {
    held_ns_ = later_ns();
    std::vector<Operation> again = held_.take_all();
    append(again, std::move(ops));
    ops = std::move(again);
  }
  one_by_one(std::move(ops));
}

// All of them in one transaction.
void WriteQueue::group(std::vector<Operation> ops) {
  if (ops.empty()) {
    return;
  }
  const bool writes = std::any_of(ops.begin(), ops.end(),
                                  [](const Operation& op) { return op.kind != Operation::kRead; });
  const int64_t begun_ns = monotonic_ns();
  bool good = jobs_.begin(writes);
  for (size_t i = 0; good && i < ops.size(); ++i) {
    good = ops[i].run() || ops[i].kind == Operation::kRead;
  }
  if (good && jobs_.commit(writes)) {
    return committed(std::move(ops), writes, begun_ns);
  }
  const Fault fault = jobs_.fault();
  if (!fault.own) {
    return fail(ops, fault);
  }
  jobs_.roll_back();
  one_by_one(std::move(ops));
}

// The same, but that an operation which fails by itself does not fail the others.
void WriteQueue::one_by_one(std::vector<Operation> ops) {
  const int64_t begun_ns = monotonic_ns();
  std::vector<Operation> done;
  bool good = jobs_.begin(true);
  Fault fault = good ? Fault() : jobs_.fault();
  for (Operation& op : ops) {
    if (held_.holds_up(op)) {
      held_.hold(std::move(op));
      continue;
    }
    if (good && !(good = run_alone(op, fault)) && fault.own) {
      good = true;
      if (op.kind == Operation::kPromise) {
        op.on_refused(false);
      } else if (op.job) {
        held_.note_failure(*op.job, fault.error);
        held_.hold(std::move(op));
        continue;
      } else {
        log(Level::kError, "given up: " + fault.error.message);
      }
    }
    done.push_back(std::move(op));
  }
  if (!good || !jobs_.commit(true)) {
    return fail(done, good ? jobs_.fault() : fault);
  }
  committed(std::move(done), true, begun_ns);
  held_.give_up_some([this](const JobId& id, std::vector<Operation>&& of_it, std::string&& why) {
    give_up(id, std::move(of_it), std::move(why));
  });
}

// False: it has left nothing behind if the fault is its own; else the transaction is over.
bool WriteQueue::run_alone(Operation& op, Fault& fault) {
  if (jobs_.savepoint() && (op.run() || op.kind == Operation::kRead) && jobs_.release()) {
    return true;
  }
  fault = jobs_.fault();
  if (fault.own && !jobs_.undo()) {
    fault = jobs_.fault();
    fault.own = false;
  }
  return false;
}

// The job's end is written without a result. If it has not ended yet, whoever runs it is told.
void WriteQueue::give_up(const JobId& id, std::vector<Operation>&& ops, std::string&& why) {
  ++lost_results_;
  jobs_.spoil(sequence_of(id));
  std::vector<Operation> over;
  for (Operation& op : ops) {
    if (op.lose_result) {
      op.lose_result();
    }
    (op.part ? over : backlog_).push_back(std::move(op));
  }
  over.push_back({.on_done = [this, id, why = std::move(why)] { options_.on_lost_result(id, why); },
                  .asked = false});
  hand_back(over);
}

void WriteQueue::committed(std::vector<Operation> ops, bool writes, int64_t begun_ns) {
  if (disk_.now() == Disk::kBroken) {
    disk_.become_well();
  }
  const bool alone = is_idle();
  flusher_->add({.ops = std::move(ops),
                 .writes = writes,
                 .begun_ns = begun_ns,
                 .unwanted_files = jobs_.take_unwanted_files()},
                alone);
  const uint64_t log_bytes = jobs_.tables().log().pages() * kPageBytes;
  if (writes && log_bytes > options_.log_bytes / kLogParts * (kLogParts - 1) &&
      monotonic_ns() >= checkpoint_ns_ && flusher_->drain()) {
    checkpoint();
  }
}

// Without room for it in the database the log would grow: nothing more is promised until then.
void WriteQueue::checkpoint() {
  const bool has_grown =
      static_cast<uint64_t>(jobs_.tables().log().bytes()) > 2 * options_.log_bytes;
  if (has_grown ? jobs_.tables().empty_log() : jobs_.tables().checkpoint()) {
    if (disk_.now() == Disk::kStuck) {
      disk_.become_well();
    }
    return;
  }
  disk_.become(Disk::kStuck);
  disk_.note_fault(jobs_.tables().error().message);
  checkpoint_ns_ = later_ns();
}

WriteQueue::Wiped WriteQueue::wipe_some() {
  if (disk_.now() != Disk::kWell || !backlog_.empty() || !held_.empty()) {
    return Wiped::kNotNow;
  }
  const int64_t begun_ns = monotonic_ns();
  bool more = false;
  if (!jobs_.begin(true) || !jobs_.tables().vacuum_some(more) || !jobs_.commit(true)) {
    log(Level::kError, "what was purged cannot be wiped: " + jobs_.fault().error.message);
    jobs_.roll_back();
    return Wiped::kNotNow;
  }
  committed({}, true, begun_ns);
  return more ? Wiped::kSome : empty_log() ? Wiped::kAll : Wiped::kNotNow;
}

bool WriteQueue::empty_log() {
  if (disk_.now() != Disk::kWell || !flusher_->drain()) {
    return false;
  }
  const bool empty = jobs_.tables().empty_log();
  if (!empty) {
    log(Level::kError, "the log cannot be emptied: " + jobs_.fault().error.message);
  }
  return empty;
}

bool WriteQueue::is_idle() {
  const MutexLock lock(mutex_);
  return inbox_.empty();
}

int64_t WriteQueue::later_ns() const { return monotonic_ns() + options_.retry_ms * kNsPerMs; }

// The transaction could not be committed. The commit may have reached the disk all the same:
// what it would promise is taken back.
void WriteQueue::fail(std::vector<Operation>& ops, const Fault& fault) {
  const bool full = fault.error.kind == ErrorKind::kNoSpace;
  disk_.note_fault(fault.error.message);
  jobs_.roll_back();
  if (full) {
    disk_.reserve().give_up();
  }
  disk_.become(Disk::kBroken);
  flusher_->drain();  // so that all are told in order
  set_aside(ops, full);
}

// Promises are told that they are none, reads are done alone, and all else waits for the next
// try. Reads, too, while nobody knows what of it is on disk.
void WriteQueue::set_aside(std::vector<Operation>& ops, bool full) {
  std::vector<Operation> over;
  for (Operation& op : ops) {
    if (op.kind == Operation::kWrite ||
        (op.kind == Operation::kRead && disk_.now() == Disk::kLost)) {
      backlog_.push_back(std::move(op));
      continue;
    }
    if (op.kind == Operation::kRead) {
      op.run();
      jobs_.settle();
    } else {
      refuse(op, full);
    }
    over.push_back(std::move(op));
  }
  hand_back(over);
}

void WriteQueue::refuse(Operation& promise, bool full) {
  promise.on_refused(full);
  backlog_.push_back({.kind = Operation::kWrite, .run = std::move(promise.undo), .asked = false});
}

// The log could not be flushed: its last transactions are in the database as we see it, and
// nobody knows whether they are on disk. Writes it once more; if that fails, what they promised
// is taken back, and whoever asked for all else is told once it is safe.
bool WriteQueue::rewrite_lost() {
  for (Group& group : flusher_->take_lost()) {
    unsafe_.push_back(std::move(group));
  }
  if (!jobs_.tables().log().rewrite()) {
    disk_.note_fault("writing jobs failed: their log cannot be written again");
    rewrite_ns_ = later_ns();
    refuse_unsafe_promises();
    return false;
  }
  disk_.recover();
  flusher_->resume();
  for (Group& group : unsafe_) {
    on_flushed(group);
  }
  unsafe_.clear();
  return true;
}

// What was read is read again, after they were taken back.
void WriteQueue::refuse_unsafe_promises() {
  std::vector<Operation> over;
  for (Group& group : unsafe_) {
    std::vector<Operation> writes;
    for (Operation& op : group.ops) {
      if (op.kind == Operation::kPromise) {
        refuse(op, false);
        over.push_back(std::move(op));
      } else {
        (op.kind == Operation::kRead ? backlog_ : writes).push_back(std::move(op));
      }
    }
    group.ops = std::move(writes);
  }
  hand_back(over);
}

void WriteQueue::on_flushed(Group& group) {
  if (group.writes) {
    commits_ += 1;
    commit_ns_ += static_cast<uint64_t>(monotonic_ns() - group.begun_ns);
  }
  jobs_.remove_files(group.unwanted_files);
  hand_back(group.ops);
}

void WriteQueue::on_flush_failed() {
  disk_.note_fault("writing jobs failed: their log cannot be flushed to disk");
  {
    const MutexLock lock(mutex_);
    newly_lost_ = true;
    disk_.lose();
  }
  wake_.notify_one();
}

void WriteQueue::hand_back(std::vector<Operation>& ops) {
  bool idle = false;
  {
    const MutexLock lock(mutex_);
    idle = done_.empty();
    for (Operation& op : ops) {
      if (op.asked || op.on_done) {
        done_.push_back({std::move(op.on_done), op.asked, op.bytes});
      }
    }
  }
  if (idle) {
    constexpr uint64_t kOne = 1;
    [[maybe_unused]] const ssize_t n = ::write(event_.get(), &kOne, sizeof kOne);
  }
}

}  // namespace penstock::queue
