// Messages: what each frame's payload means. This file, edge_messages.h and device_messages.h are
// the only definition of the field tags.
//
// A message is a struct of views and numbers with one function, visit(), that names each field's
// tag; parse() and append() are both made from it. Views point into the frame they were parsed
// from. A frame type without a struct here (CHUNK, CANCEL, DRAIN) has no fields.
#pragma once

#include <cstdint>
#include <string_view>

#include "shared/wire/edge_messages.h"
#include "shared/wire/message_codec.h"

namespace penstock::wire {

// kEdge: an Nginx's own line, over which it hears what became of jobs that were promised.
// kWatch: the process that watches the devices.
enum class Role : uint64_t { kCaller = 1, kWorker = 2, kTool = 3, kEdge = 4, kWatch = 5 };

// Which requests a worker's engine may refuse as they stand, and is to be shown by CHECK: those to
// any path, or to .../completions alone.
enum class Checking : uint64_t { kNone = 0, kAll = 1, kCompletions = 2 };

struct Hello {
  static constexpr FrameType kType = FrameType::kHello;
  uint64_t version = 0;    // kVersion to kNewestVersion
  uint64_t role = 0;       // Role
  std::string_view name;   // worker: as in penstock.yaml; an Nginx: of which Penstock its module is
  std::string_view model;  // worker: the model it serves
  uint64_t slots = 0;      // worker: jobs it runs at once
  uint64_t checks = 0;     // worker: Checking
  std::string_view chat;   // worker: how its engine takes chats, or why not, for the operator
  uint64_t settles = 0;    // edge: 1: it shares limits through Redis, and knows how to settle what
                           // another edge has charged under them
  uint64_t nginx = 0;      // edge: tells what it has charged from what other Nginxes have
  template <typename V>
  void visit(V&& v) {
    v(1, version), v(2, role), v(3, name), v(4, model), v(5, slots), v(84, checks), v(85, chat);
    v(127, settles), v(128, nginx);
  }
};

struct Submit {
  static constexpr FrameType kType = FrameType::kSubmit;
  std::string_view queue;         // empty: "default"
  std::string_view model;         // empty: the body names none
  std::string_view owner;         // who may see and cancel it; hashed on arrival, never kept
  std::string_view share;         // whose share of the queue it takes; hashed, too; empty: the
                                  // owner
  std::string_view tier;          // the plan's name, a label
  int64_t priority = 0;           // class; higher goes first
  uint64_t weight = 0;            // share within the class; 0 means 1
  uint64_t cost = 0;              // estimate in the limiter's units; 0 means not known
  std::string_view method;        // "POST"
  std::string_view path;          // "/v1/completions", without the query
  std::string_view query;         // behind the path: "beta=true", as it came
  std::string_view content_type;  // as the client sent it
  std::string_view headers;   // others of the client's that go on (http/passed_headers.h), "Name:
                              // value\n" each
  std::string_view override;  // a JSON object of the operator's: its fields take the place of
                              // those in the body; empty: none
  // The headers that ask for more than an answer, as the client sent them; penstockd reads them.
  std::string_view prefer;           // Prefer: respond-async, wait=5
  std::string_view idempotency_key;  // Idempotency-Key
  std::string_view delay;            // Penstock-Delay
  std::string_view not_before;       // Penstock-Not-Before
  std::string_view callback;         // Penstock-Callback
  std::string_view label;            // Penstock-Label
  uint64_t dedupe = 0;               // 1: joins the job of the same owner (of the same share, where
                                     // there is none), queue and body
  uint64_t on_duplicate = 0;         // OnDuplicate
  uint64_t max_wait_ms = 0;          // refuse what would wait longer; 0: however long
  // Of the caller's own: by when it is to have started, and to be done, from now. Refused if that
  // is not foreseen, dropped once it is late. 0: whenever.
  uint64_t start_within_ms = 0;
  uint64_t finish_within_ms = 0;
  uint64_t news_ms = 0;      // its answer is a stream that may begin with NOTEs, each so
                             // long after the one before at least; 0: without
  uint64_t news_events = 0;  // 1: events in them, too, and not only comments
  // The answer of an earlier request that asked the same may do, and this one's is kept for that.
  uint64_t earlier = 0;        // Earlier: whose; 0: none
  uint64_t earlier_when = 0;   // EarlierWhen
  uint64_t earlier_age_s = 0;  // no older than that; 0: however old
  std::string_view jobs_path;  // where the owner sees its jobs: "/jobs"
  std::string_view receipt;    // what the edge has charged, for HOLD and OVER; opaque here
  uint64_t limited_us = 0;     // from the client's request to this
  uint64_t deadline_ms = 0;    // penstockd → worker: so long it may take from now; 0: unsaid
  std::string_view trace;  // penstockd → worker: traceparent of this run, in place of `headers`'
  std::string_view body;   // last, so that a sender can stream it behind the rest
  static constexpr uint32_t kBodyTag = 31;
  static constexpr uint32_t kDeadlineTag = 93;
  static constexpr uint32_t kTraceTag = 121;
  template <typename V>
  void visit(V&& v) {
    v(6, queue), v(7, model), v(8, owner), v(81, share), v(9, tier), v(10, priority);
    v(11, weight), v(12, cost);
    v(13, method), v(14, path), v(49, query), v(15, content_type), v(46, headers);
    v(35, override);
    v(36, prefer), v(37, idempotency_key), v(38, delay), v(39, not_before), v(40, callback);
    v(94, label);
    v(41, dedupe), v(42, on_duplicate), v(43, max_wait_ms);
    v(95, start_within_ms), v(96, finish_within_ms), v(97, news_ms), v(98, news_events);
    v(102, earlier), v(103, earlier_when), v(104, earlier_age_s);
    v(44, jobs_path), v(45, receipt), v(120, limited_us);
    v(kDeadlineTag, deadline_ms), v(kTraceTag, trace);
    v(kBodyTag, body);
  }
};

enum class OnDuplicate : uint64_t { kJoin = 0, kReject = 1 };

// Whose earlier answers may do: those of the request's owner, or of all who asked so.
enum class Earlier : uint64_t { kNone = 0, kOwn = 1, kShared = 2 };
// kBusy: in place of a 503. kOnly: the request is not to run at all; FAILED with the code
// kNoEarlierAnswer where there is none.
enum class EarlierWhen : uint64_t { kNever = 0, kBusy = 1, kOnly = 2 };
constexpr std::string_view kNoEarlierAnswer = "no_earlier_answer";

// A question about jobs: from the edge for one owner, or from a tool for the operator.
struct Ask {
  static constexpr FrameType kType = FrameType::kAsk;
  std::string_view owner;   // as in SUBMIT; a tool's: who asks, for the log
  std::string_view method;  // "GET", "DELETE"; tools: "POST" too
  std::string_view path;  // behind the place where jobs are seen: "", "/job_…", "/job_…/events"
  std::string_view query;          // "status=queued&limit=20", as it came
  std::string_view last_event_id;  // Last-Event-ID
  uint64_t websocket = 0;          // 1: events as WebSocket messages, not as text/event-stream
  std::string_view jobs_path;      // as in SUBMIT
  template <typename V>
  void visit(V&& v) {
    v(8, owner), v(13, method), v(14, path), v(49, query), v(50, last_event_id), v(51, websocket);
    v(44, jobs_path);
  }
};

// A promised job still holds what the edge charged for it: the edge renews its leases.
struct Hold {
  static constexpr FrameType kType = FrameType::kHold;
  std::string_view receipt;
  template <typename V>
  void visit(V&& v) {
    v(45, receipt);
  }
};

// The job is over; the edge settles what it charged, and lets the leases go.
struct Over {
  static constexpr FrameType kType = FrameType::kOver;
  // kAllRefunded: it failed of our own doing. kNoneRefunded: what it used is not known, so what was
  // reserved stands.
  static constexpr uint64_t kUnusedRefunded = 0, kAllRefunded = 1, kNoneRefunded = 2;
  // What becomes of the receipt's entries with seals: as of all others, they are settled by the
  // edge that charged them; or by this one, whoever did, as nobody else does nor has; or they are
  // settled by another. Numbers from kOfOthers on are of jobs whose home is gone.
  static constexpr uint64_t kAsOthers = 0, kAnywhere = 1, kElsewhere = 2;
  static constexpr uint64_t kOfOthers = uint64_t{1} << 63;
  std::string_view receipt;
  uint64_t refund = kUnusedRefunded;
  uint64_t sealed = kAsOthers;
  std::string_view model;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t device_ns = 0;
  uint64_t estimated = 0;  // as in DONE
  template <typename V>
  void visit(V&& v) {
    v(45, receipt), v(52, refund), v(7, model), v(22, prompt_tokens), v(23, completion_tokens);
    v(24, device_ns), v(86, estimated), v(129, sealed);
  }
};

// The edge has seen to OVER: it need not be told again.
struct Settled {
  static constexpr FrameType kType = FrameType::kSettled;
  template <typename V>
  void visit(V&&) {}
};

struct Accepted {
  static constexpr FrameType kType = FrameType::kAccepted;
  std::string_view job_id;  // "job_…"
  uint64_t position = 0;    // 1: the next to start; 0: started at once
  uint64_t eta_ms = 0;      // predicted wait until it starts
  uint64_t promised = 0;    // 1: as in HEAD
  uint64_t counts = 0;      // 1: penstockd may be told SPENT of it
  template <typename V>
  void visit(V&& v) {
    v(16, job_id), v(17, position), v(18, eta_ms), v(48, promised), v(113, counts);
  }
};

struct Head {
  static constexpr FrameType kType = FrameType::kHead;
  uint64_t status = 0;                // 200
  std::string_view content_type;      // "text/event-stream"
  uint64_t content_length_plus1 = 0;  // 0: not known, the answer streams
  std::string_view headers;           // more of them, "Name: value\n" each
  // Only penstockd sends these:
  std::string_view file;   // the answer's body is this file, and no CHUNK comes
  uint64_t promised = 0;   // 1: what was charged is settled by OVER, not by this answer
  uint64_t duplicate = 0;  // 1: the answer of a job that was there already; it cost nothing new
  uint64_t earlier = 0;    // 1: `duplicate`, and it was answered before this one came
  uint64_t opens = 0;      // 1: NOTEs follow, and the HEAD with which the answer really begins
  uint64_t queue_us = 0;   // how long the job has waited ...
  uint64_t run_us = 0;     // ... and run until now; 0: not told
  template <typename V>
  void visit(V&& v) {
    v(19, status), v(15, content_type), v(20, content_length_plus1);
    v(46, headers), v(47, file), v(48, promised), v(53, duplicate);
    v(105, earlier), v(99, opens), v(100, queue_us), v(101, run_us);
  }
};

// News of a job for the stream in which its answer will come.
struct Note {
  static constexpr FrameType kType = FrameType::kNote;
  std::string_view text;  // for the stream as it is: whole comments and events
  uint64_t position = 0;  // 0: it runs
  uint64_t eta_ms = 0;    // as in ACCEPTED
  template <typename V>
  void visit(V&& v) {
    v(31, text), v(17, position), v(18, eta_ms);
  }
};

struct Progress {
  static constexpr FrameType kType = FrameType::kProgress;
  uint64_t millionths = 0;
  uint64_t position = 0;
  uint64_t eta_ms = 0;
  uint64_t step = 0;  // of so many: frames of a video, tokens of an answer; 0: not said
  uint64_t steps = 0;
  template <typename V>
  void visit(V&& v) {
    v(21, millionths), v(17, position), v(18, eta_ms), v(54, step), v(55, steps);
  }
};

// What a job looks like so far; the last one counts.
struct Preview {
  static constexpr FrameType kType = FrameType::kPreview;
  std::string_view content_type;  // "image/png"
  std::string_view body;
  template <typename V>
  void visit(V&& v) {
    v(15, content_type), v(31, body);
  }
};

struct Done {
  static constexpr FrameType kType = FrameType::kDone;
  uint64_t prompt_tokens = 0;      // as the model read the prompt, its own control tokens included
  uint64_t completion_tokens = 0;  // drawn, the one that ended the answer included
  uint64_t device_ns = 0;          // this job's share of the device's time
  uint64_t estimated = 0;          // 1: nobody told the tokens; nothing is learned by them
  template <typename V>
  void visit(V&& v) {
    v(22, prompt_tokens), v(23, completion_tokens), v(24, device_ns), v(86, estimated);
  }
};

struct Failed {
  static constexpr FrameType kType = FrameType::kFailed;
  uint64_t status = 0;         // HTTP status
  std::string_view code;       // error.code of CONTRACT, section 4
  std::string_view message;    // for the caller's eyes
  std::string_view param;      // offending request field
  uint64_t retry_after_s = 0;  // 0: none
  uint64_t retryable = 0;      // worker → penstockd: another attempt may succeed
  uint64_t returned = 0;       // worker → penstockd: there is no room; it was no attempt
  std::string_view headers;    // from penstockd only: as in HEAD; of some names, see PROTOCOL
  std::string_view json;       // from penstockd only: the engine's own words, an OpenAI error
  template <typename V>
  void visit(V&& v) {
    v(19, status), v(25, code), v(26, message), v(27, param), v(28, retry_after_s);
    v(29, retryable), v(87, returned), v(46, headers), v(31, json);
  }
};

// What the engine has against a request that it was shown by CHECK (whose fields are SUBMIT's).
struct Checked {
  static constexpr FrameType kType = FrameType::kChecked;
  uint64_t status = 0;  // HTTP status, 4xx; 0: nothing
  std::string_view code;
  std::string_view message;
  std::string_view param;
  template <typename V>
  void visit(V&& v) {
    v(19, status), v(25, code), v(26, message), v(27, param);
  }
};

struct Take {
  static constexpr FrameType kType = FrameType::kTake;
  uint64_t credit = 0;        // jobs the worker can hold beyond those it was given
  uint64_t memory_bytes = 0;  // of what was granted, that it holds no more
  template <typename V>
  void visit(V&& v) {
    v(32, credit), v(34, memory_bytes);
  }
};

// How many of the worker's slots can be used, until its next SLOTS. Before its first: all.
struct Slots {
  static constexpr FrameType kType = FrameType::kSlots;
  uint64_t slots = 0;        // for all of its jobs together, those that run included
  uint64_t out = 0;          // 1: 0 slots, as what would run the jobs is not there
  uint64_t retry_ms = 0;     // so long it will be so, at least; 0: not known
  std::string_view message;  // why it is not all of them, for the operator
  template <typename V>
  void visit(V&& v) {
    v(5, slots), v(88, out), v(89, retry_ms), v(26, message);
  }
};

// A job's memory on the device, asked for by the worker that was given it ...
struct Claim {
  static constexpr FrameType kType = FrameType::kClaim;
  uint64_t memory_bytes = 0;
  template <typename V>
  void visit(V&& v) {
    v(34, memory_bytes);
  }
};

// ... and to be had: the job may start.
struct Grant {
  static constexpr FrameType kType = FrameType::kGrant;
  uint64_t memory_bytes = 0;  // as asked for
  template <typename V>
  void visit(V&& v) {
    v(34, memory_bytes);
  }
};

// How many more bytes of the job's answer may be sent.
struct Window {
  static constexpr FrameType kType = FrameType::kWindow;
  uint64_t bytes = 0;
  template <typename V>
  void visit(V&& v) {
    v(82, bytes);
  }
};

// How a worker that penstockd started writes its log from now on (base/log.h).
struct Log {
  static constexpr FrameType kType = FrameType::kLog;
  uint64_t level = 0;   // LogLevel
  uint64_t format = 0;  // LogFormat
  template <typename V>
  void visit(V&& v) {
    v(118, level), v(119, format);
  }
};

struct Heartbeat {
  static constexpr FrameType kType = FrameType::kHeartbeat;
  uint64_t running = 0;
  uint64_t memory_bytes = 0;
  uint64_t waiting = 0;  // for the memory they need
  // What the engine has done since the process began; 0 where it does not count.
  uint64_t steps = 0;
  uint64_t step_jobs = 0;  // jobs in each step, summed over the steps
  uint64_t prompt_tokens = 0;
  uint64_t generation_tokens = 0;
  // The engine's key-value cache, now.
  uint64_t kv_blocks = 0;
  uint64_t kv_blocks_used = 0;
  // For so long its engine has been in one step, or in reading one request; 0: in neither.
  uint64_t step_ms = 0;
  // What the server says of itself on which the engine's jobs run; 0 where it does not.
  uint64_t server_running = 0;
  uint64_t server_waiting = 0;  // in its own queue
  uint64_t context_tokens = 0;  // that the model reads and writes at most
  template <typename V>
  void visit(V&& v) {
    v(33, running), v(34, memory_bytes), v(64, waiting), v(65, steps), v(66, step_jobs);
    v(22, prompt_tokens), v(67, generation_tokens), v(68, kv_blocks), v(69, kv_blocks_used);
    v(83, step_ms), v(90, server_running), v(91, server_waiting), v(92, context_tokens);
  }
};

struct StatusReport {  // no fields when it is the question
  static constexpr FrameType kType = FrameType::kStatus;
  std::string_view json;
  template <typename V>
  void visit(V&& v) {
    v(31, json);
  }
};

struct Goodbye {
  static constexpr FrameType kType = FrameType::kGoodbye;
  std::string_view message;
  uint64_t device_fault = 0;  // worker → penstockd: 1: the device failed, not the worker
  uint64_t denied = 0;        // from penstockd: 1: the peer may not be what it said it is
  uint64_t drained = 0;       // penstockd → worker: 1: it has no place until an operator says so
  template <typename V>
  void visit(V&& v) {
    v(26, message), v(63, device_fault), v(106, denied), v(126, drained);
  }
};

}  // namespace penstock::wire
