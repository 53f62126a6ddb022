// What a hand-over record is made of, an entry each. A reader skips fields that it does not know,
// and takes defaults for those that were not written; an entry that older readers must not miss
// makes a new format (record.h).
//
// Descriptors are numbers: they stay open over exec(2). Times are of the clock that goes on
// (clock/awake_clock.h), or of monotonic_ns() where that is said. A list of texts is one text, each
// followed by a NUL. What is learned (Estimates) are the bytes of a plain struct, and is dropped
// where it is not as long as the reader's.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/wire/message_codec.h"

namespace penstock::queue {

constexpr wire::FrameType entry_type(uint8_t number) {
  return static_cast<wire::FrameType>(number);
}

// The first entry.
struct CarriedBegin {
  static constexpr wire::FrameType kType = entry_type(1);
  uint64_t format = 0;
  std::string_view version;       // of the penstockd that wrote it
  int64_t now_ns = 0;             // when
  int64_t missed_ns = 0;          // of the clock: what was left out
  std::string_view notify;        // the service manager's socket; empty: none
  int64_t watchdog_every_ns = 0;  // 0: it does not watch
  uint64_t upgrades = 0;          // of this process, the one under way included
  uint64_t job_number = 0;        // the last on workers' connections
  uint64_t check_number = 0;      // likewise, of CHECK
  std::string_view secret;        // owners and keys are hashed under
  std::string_view kept;          // for whoever ordered it: what was carried
  uint64_t watchdog_us = 0;       // the service manager's own
  template <typename V>
  void visit(V&& v) {
    v(1, format), v(2, version), v(3, now_ns), v(4, missed_ns), v(5, notify);
    v(6, watchdog_every_ns), v(7, upgrades), v(8, job_number), v(9, check_number), v(10, secret);
    v(11, kept), v(12, watchdog_us);
  }
};

struct CarriedListener {
  static constexpr wire::FrameType kType = entry_type(2);
  std::string_view path;
  uint64_t fd = 0;
  uint64_t lock_fd = 0;
  uint64_t held = 0;  // 1: by a service manager
  template <typename V>
  void visit(V&& v) {
    v(1, path), v(2, fd), v(3, lock_fd), v(4, held);
  }
};

// The lock of the state's folder (name empty), or of a device that processes run on.
struct CarriedLock {
  static constexpr wire::FrameType kType = entry_type(3);
  std::string_view name;
  uint64_t fd = 0;
  uint64_t out = 0;  // 1: nothing is started there before it was checked
  std::string_view fault;
  template <typename V>
  void visit(V&& v) {
    v(1, name), v(2, fd), v(3, out), v(4, fault);
  }
};

// A device as the driver told of it last.
struct CarriedDevice {
  static constexpr wire::FrameType kType = entry_type(4);
  uint64_t index = 0;
  uint64_t parent_plus1 = 0;
  std::string_view uuid;
  std::string_view name;
  uint64_t memory_total_bytes = 0;
  uint64_t health = 0;
  std::string_view message;
  template <typename V>
  void visit(V&& v) {
    v(1, index), v(2, parent_plus1), v(3, uuid), v(4, name), v(5, memory_total_bytes);
    v(6, health), v(7, message);
  }
};

// A caller's connection. Waiters name it by its place among these, from 0.
struct CarriedCaller {
  static constexpr wire::FrameType kType = entry_type(5);
  uint64_t fd = 0;
  uint64_t role = 0;  // 0: no HELLO has come
  int64_t arrived_ns = 0;
  std::string_view unread;
  uint64_t to_skip = 0;
  std::string_view unsent;
  uint64_t upgrade = 0;  // 1: it has ordered this, by the request:
  uint64_t order_id = 0;
  std::string_view order_by;
  template <typename V>
  void visit(V&& v) {
    v(1, fd), v(2, role), v(3, arrived_ns), v(4, unread), v(5, to_skip), v(6, unsent);
    v(7, upgrade), v(8, order_id), v(9, order_by);
  }
};

// A worker's process, or one that is awaited. What it runs, in the order it was given, follows.
struct CarriedWorker {
  static constexpr wire::FrameType kType = entry_type(6);
  // Its configuration:
  std::string_view name, engine, model, model_path, model_name, devices, device, queue, options;
  std::string_view environment, kind, limit_key;
  uint64_t adaptive_slots = 0;
  uint64_t slots = 0;
  int64_t memory_bytes = 0;
  uint64_t threads = 0;
  uint64_t external = 0;
  // Its process:
  uint64_t state = 0;
  uint64_t pid = 0;  // 0: none of ours
  int64_t start_ns = 0;
  int64_t ready_ns = 0;
  int64_t kill_ns = 0;
  uint64_t killed = 0;
  uint64_t ordered = 0;
  uint64_t restarts = 0;
  uint64_t retired = 0;
  std::string_view end, last_error;
  uint64_t busy = 0;  // slots of its seat
  int64_t granted_bytes = 0;
  // Its connection:
  uint64_t has_fd = 0;
  uint64_t fd = 0;
  std::string_view unread;
  uint64_t to_skip = 0;
  std::string_view unsent;
  uint64_t is_ready = 0;
  uint64_t draining = 0;
  uint64_t checks = 0;
  uint64_t said_slots = 0;
  uint64_t credit = 0;
  uint64_t capacity = 0;
  uint64_t open_slots = 0;
  uint64_t is_out = 0;
  int64_t reopens_ns = 0;
  std::string_view why_closed, chat, heartbeat;
  uint64_t last_number = 0;
  int64_t last_heard_ns = 0;
  int64_t backoff_ns = 0;  // before the start after the next failure
  template <typename V>
  void visit(V&& v) {
    v(1, name), v(2, engine), v(3, model), v(4, model_path), v(5, model_name), v(6, devices);
    v(7, device), v(8, queue), v(9, options), v(10, environment), v(11, kind), v(12, limit_key);
    v(13, adaptive_slots), v(14, slots), v(15, memory_bytes), v(16, threads), v(17, external);
    v(18, state), v(19, pid), v(20, start_ns), v(21, ready_ns), v(22, kill_ns), v(23, killed);
    v(24, ordered), v(25, restarts), v(26, retired), v(27, end), v(28, last_error), v(29, busy);
    v(30, granted_bytes), v(31, has_fd), v(32, fd), v(33, unread), v(34, to_skip), v(35, unsent);
    v(36, is_ready), v(37, draining), v(38, checks), v(39, said_slots), v(40, credit);
    v(41, capacity), v(42, open_slots), v(43, is_out), v(44, reopens_ns), v(45, why_closed);
    v(46, chat), v(47, heartbeat), v(48, last_number), v(49, last_heard_ns), v(50, backoff_ns);
  }
};

// A job that the worker before it runs.
struct CarriedGiven {
  static constexpr wire::FrameType kType = entry_type(7);
  uint64_t job_high = 0;
  uint64_t job_low = 0;
  uint64_t number = 0;
  uint64_t sent = 0;
  int64_t given_ns = 0;
  int64_t priority = 0;
  int64_t head_ns = 0;
  int64_t paced_ns = 0;
  uint64_t paced_tokens = 0;
  std::string_view paced_windows;
  uint64_t tokens = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, job_high), v(2, job_low), v(3, number), v(4, sent), v(5, given_ns), v(6, priority);
    v(7, head_ns), v(8, paced_ns), v(9, paced_tokens), v(10, paced_windows), v(11, tokens);
  }
};

// Memory of a device that a job waits for; first come, first served.
struct CarriedClaim {
  static constexpr wire::FrameType kType = entry_type(8);
  std::string_view worker;
  uint64_t number = 0;
  int64_t bytes = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, worker), v(2, number), v(3, bytes);
  }
};

// A queue; its lanes follow, and behind each of those its classes, with their owners' flows.
struct CarriedQueue {
  static constexpr wire::FrameType kType = entry_type(9);
  std::string_view name;
  uint64_t paused = 0;
  uint64_t taken = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, name), v(2, paused), v(3, taken);
  }
};

struct CarriedLane {
  static constexpr wire::FrameType kType = entry_type(10);
  std::string_view model;
  uint64_t context_tokens = 0;
  std::string_view service, spread, arriving;  // Estimates
  int64_t highest_taken = 0;
  uint64_t promoted_at = 0;
  int64_t aging_ns = 0;  // looked at again then; 0: it is not
  template <typename V>
  void visit(V&& v) {
    v(1, model), v(2, context_tokens), v(3, service), v(4, spread), v(5, arriving);
    v(6, highest_taken), v(7, promoted_at), v(8, aging_ns);
  }
};

struct CarriedClass {
  static constexpr wire::FrameType kType = entry_type(11);
  int64_t priority = 0;
  uint64_t virtual_time = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, priority), v(2, virtual_time);
  }
};

struct CarriedFlow {
  static constexpr wire::FrameType kType = entry_type(12);
  uint64_t owner = 0;
  uint64_t weight = 0;
  int64_t end = 0;
  int64_t served = 0;
  uint64_t rest = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, owner), v(2, weight), v(3, end), v(4, served), v(5, rest);
  }
};

// A job. Of one that was promised, the store has the rest.
struct CarriedJob {
  static constexpr wire::FrameType kType = entry_type(13);
  enum Flag : uint64_t {
    kPromised = 1,
    kAnswerBegan = 2,
    kAnswerFails = 4,
    kKeepsAnswer = 8,
    kHasCallback = 16,
    kByDate = 32,
    kPassed = 64,
    kHasProgress = 128,
    kPaid = 256,
  };
  uint64_t high = 0;
  uint64_t low = 0;
  uint64_t flags = 0;
  int64_t created_ms = 0;
  uint64_t owner = 0;
  // Its place:
  std::string_view queue, model;
  uint64_t share = 0;
  int64_t priority = 0;
  uint64_t cost = 0;
  uint64_t tag = 0;
  uint64_t arrival = 0;
  uint64_t span = 0;
  uint64_t attempts = 0;
  uint64_t promoted = 0;
  uint64_t state = 0;
  int64_t arrived_ns = 0;
  int64_t deadline_ns = 0;
  int64_t due_ns = 0;  // of one that is delayed or scheduled
  int64_t started_ns = 0;
  std::string_view served_by;  // the model of its worker's lane
  // Of what only some have:
  std::string_view frame;
  int64_t ends_by_ns = 0;
  uint64_t taken_bytes = 0;
  uint64_t key_lo = 0, key_hi = 0, digest_lo = 0, digest_hi = 0;
  std::string_view label, receipt, trace;
  uint64_t limited_us = 0;
  uint64_t progress_millionths = 0;
  uint64_t step = 0;
  uint64_t steps = 0;
  std::string_view preview_type, preview;
  uint64_t preview_number = 0;
  uint64_t answer_status = 0;
  std::string_view answer_type, answer_headers, answer_tail;
  uint64_t answer_bytes = 0;
  uint64_t answer_stored = 0;
  std::string_view kept;  // its record (shared_jobs/shared_record.h)
  uint64_t kept_key_lo = 0, kept_key_hi = 0;
  uint64_t suspect = 0;              // of a group of suspects (jobs/suspects.h): its number
  uint64_t suspect_place_plus1 = 0;  // among those that wait set apart; 0: it runs
  std::string_view suspect_of;       // the model of the lane whose worker crashed
  template <typename V>
  void visit(V&& v) {
    v(1, high), v(2, low), v(3, flags), v(4, created_ms), v(5, owner), v(6, queue), v(7, model);
    v(8, share), v(9, priority), v(10, cost), v(11, tag), v(12, arrival), v(13, span);
    v(14, attempts), v(15, promoted), v(16, state), v(17, arrived_ns), v(18, deadline_ns);
    v(19, due_ns), v(20, started_ns), v(21, served_by), v(22, frame), v(23, ends_by_ns);
    v(24, taken_bytes), v(25, key_lo), v(26, key_hi), v(27, digest_lo), v(28, digest_hi);
    v(29, label), v(30, receipt), v(31, trace), v(32, limited_us), v(33, progress_millionths);
    v(34, step), v(35, steps), v(36, preview_type), v(37, preview), v(38, preview_number);
    v(39, answer_status), v(40, answer_type), v(41, answer_headers), v(42, answer_tail);
    v(43, answer_bytes), v(44, answer_stored), v(45, kept);
    v(46, kept_key_lo), v(47, kept_key_hi), v(48, suspect), v(49, suspect_place_plus1);
    v(50, suspect_of);
  }
};

// Who waits for the job before it; of several, the one that is told last comes first.
struct CarriedWaiter {
  static constexpr wire::FrameType kType = entry_type(14);
  uint64_t caller = 0;
  uint64_t id = 0;
  uint64_t kind = 0;
  uint64_t duplicate = 0;
  uint64_t websocket = 0;
  int64_t due_ns = 0;
  int64_t wait_ns = 0;
  int64_t wait_ends_ns = 0;
  uint64_t told_bytes = 0;
  uint64_t told_status = 0;
  uint64_t told_position = 0;
  uint64_t told_by_class = 0;
  int64_t told_eta_s = 0;
  uint64_t is_foretold = 0;
  int64_t foretold_s = 0;
  int64_t told_ns = 0;
  uint64_t progress_due = 0;
  std::string_view jobs_path;
  // Of a stream that speaks while it waits:
  uint64_t has_news = 0;
  int64_t every_ns = 0;
  uint64_t events = 0;
  uint64_t completion = 0;
  int64_t speaks_ns = 0;
  uint64_t opened = 0;
  uint64_t misfit_status = 0;
  uint64_t misfit_is_json = 0;
  std::string_view misfit;
  template <typename V>
  void visit(V&& v) {
    v(1, caller), v(2, id), v(3, kind), v(4, duplicate), v(5, websocket), v(6, due_ns);
    v(7, wait_ns), v(8, wait_ends_ns), v(9, told_bytes), v(10, told_status);
    v(11, told_position), v(12, told_by_class), v(13, told_eta_s), v(14, is_foretold);
    v(15, foretold_s), v(16, told_ns), v(17, progress_due), v(18, jobs_path), v(19, has_news);
    v(20, every_ns), v(21, events), v(22, completion), v(23, speaks_ns), v(24, opened);
    v(25, misfit_status), v(26, misfit_is_json), v(27, misfit);
  }
};

// So many processes of a worker, by an operator's order or by its load.
struct CarriedScale {
  static constexpr wire::FrameType kType = entry_type(15);
  std::string_view worker;
  uint64_t processes = 0;
  uint64_t by_load = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, worker), v(2, processes), v(3, by_load);
  }
};

// The last entry: all came.
struct CarriedEnd {
  static constexpr wire::FrameType kType = entry_type(16);
  uint64_t entries = 0;  // before it
  template <typename V>
  void visit(V&& v) {
    v(1, entries);
  }
};

}  // namespace penstock::queue
