// What is asked of the store, and what it answers: pages of jobs, and of webhooks that are due.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/queue/store/job_record.h"

namespace penstock::queue {

// Results up to this size are kept in the database, larger ones in files.
constexpr size_t kInlineResultBytes = 32U << 10;

enum class PromiseOutcome : uint8_t { kStored, kDuplicate, kFull, kShareFull, kBroken };

struct JobQuery {
  std::optional<limit::Hash128> owner;  // nothing: everybody's
  std::string queue;                    // empty: every
  uint32_t statuses = ~0U;              // bits: 1 << JobStatus
  bool dead = false;                    // only those
  std::optional<JobId> before;          // older than that one
  uint32_t limit = 20;
};

struct JobPage {
  std::vector<JobRecord> jobs;  // newest first
  bool more = false;            // there may be others, before `last`
  std::optional<JobId> last;    // down to where was looked

  // In one of the places where jobs are kept, nothing older than `at` was looked at.
  void cut(const std::optional<JobId>& at);
  // Sorts jobs that come from several places. Only jobs down to where all places were looked at
  // stay, and at most `limit` of them.
  void put_in_order(uint32_t limit);
};

// A job that has completed, with its result unless that is in a file.
struct KeptAnswer {
  JobRecord job;
  std::string body;
};

// A webhook that is still to be delivered.
struct DueDelivery {
  JobId id;
  uint64_t owner = 0;  // whose share it takes, as in Job
  uint32_t tries = 0;
  int64_t due_ms = 0;
};
// Those that are due by then, the earliest first.
struct DueQuery {
  std::optional<uint64_t> owner;  // of this one alone
  int64_t after_ms = INT64_MIN;   // without an owner: behind the one of that time and sequence
  uint64_t after_sequence = 0;
  int64_t until_ms = 0;
  uint32_t limit = 1000;
};
struct DuePage {
  std::vector<DueDelivery> due;
  // Given with the last page, whose limit was not reached:
  int64_t next_ms = 0;          // when the first is due that was not by then; 0: there is none
  std::optional<uint64_t> all;  // how many are to be delivered
};
// A job whose webhook is still to be delivered is kept so much longer, at most.
constexpr int64_t kDeliveryMs = int64_t{4} * 86'400'000;
// How many URLs that want no more webhooks are kept: the latest.
constexpr size_t kMostGoneUrls = 1000;

// A notice that is still to be told.
struct DueNotice {
  JobId id;
  std::string hook;
  int64_t made_ms = 0;
  uint32_t tries = 0;
  std::string fields;
  std::string json;
};
// Those of a hook that are due by then, the earliest first.
struct NoticeQuery {
  std::string hook;
  int64_t until_ms = 0;
  uint32_t limit = 100;
};
struct NoticePage {
  std::vector<DueNotice> due;
  int64_t next_ms = 0;  // when the first is due that was not by then; 0: there is none
};

// What an operator ordered, which holds over a restart (standing_orders.h).
using Orders = std::map<std::string, int64_t>;

}  // namespace penstock::queue
