// SharedOrder: jobs come in.
#include <algorithm>
#include <utility>

#include "shared/base/clock.h"
#include "shared/redis/connection.h"
#include "worker/queue/shared_order/script_request.h"
#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {
namespace {

constexpr std::string_view kNobody = "--------";

bool read_one_added(const redisReply& answer, SharedOrder::Added& added) {
  using Admission = SharedOrder::Admission;
  if (!is_array(answer, 1)) {
    return false;
  }
  added.admission = static_cast<Admission>(number_at(answer, 0));
  switch (added.admission) {
    case Admission::kQueueFull:
    case Admission::kOwnerFull:
      return true;
    case Admission::kAdded:
    case Admission::kTooFar:
      added.position = answer.elements > 1 ? number_at(answer, 1) : 0;
      return answer.elements > 1;
    case Admission::kThere:
    case Admission::kKeyUsed:
      added.job = answer.elements > 1 ? text_at(answer, 1) : std::string();
      added.key_is = answer.elements > 2 ? text_at(answer, 2) : std::string();
      return !added.job.empty();
  }
  return false;
}

bool read_added(const redisReply& answer, std::vector<SharedOrder::Added>& all) {
  if (!is_array(answer, 1)) {
    return false;
  }
  for (size_t i = 1; i < answer.elements; ++i) {
    SharedOrder::Added& added = all.emplace_back();
    if (!read_one_added(*answer.element[i], added)) {
      return false;
    }
    added.due_us = number_at(answer, 0);
  }
  return true;
}

}  // namespace

// What add.lua calls ADDED.
std::string SharedOrder::numbers_of(const Job& job) const {
  std::string bytes;
  for (const int64_t number :
       {std::clamp(job.priority, -kHighest, kHighest),
        static_cast<int64_t>(std::clamp<uint64_t>(job.cost, 1, FairShare::kMaxCost)),
        static_cast<int64_t>(std::clamp<uint64_t>(job.weight, 1, FairShare::kMaxWeight)),
        job.not_before_us, job.came_us, job.deadline_us, queue_.deadline_ns / kNsPerUs,
        int64_t{std::min(job.attempts, Scheduler::kMaxAttempts)},
        job.force ? 0 : int64_t{queue_.max_length}, int64_t{queue_.max_per_owner}, job.key_ms,
        job.ends_by_us, job.last_position, int64_t{job.marks}, int64_t{job.anew ? 1 : 0},
        int64_t{job.for_replicas ? 1 : 0}, int64_t{job.waited && !job.home.empty() ? 1 : 0}}) {
    bytes += double_of(number);
  }
  return bytes;
}

bool SharedOrder::add(std::span<const Job> jobs, Then<std::vector<Added>> then) {
  static_assert(3 + 10 * kMostAdded <= redis::Connection::kMostArguments);  // as follows
  ScriptWords words = this->words();
  for (const Job& job : jobs) {
    words.text(job.id).text(job.lane).own(bytes_of(job.owner)).own(numbers_of(job));
    words.text(job.home.empty() ? kNobody : job.home);
    words.text(job.key).text(job.key_is).text(job.instead_of).text(job.listed).text(job.body);
  }
  return ask<std::vector<Added>>(
      order_script::kAdd, words, read_added,
      [count = jobs.size(), then = std::move(then)](Answer<std::vector<Added>>& answer) {
        if (answer && answer.value.size() != count) {
          answer.trouble = Trouble::kUnknown;
        }
        then(answer);
      });
}

bool SharedOrder::add(const Job& job, Then<Added> then) {
  return add(std::span(&job, 1), [then = std::move(then)](Answer<std::vector<Added>>& all) {
    Answer<Added> answer{{}, all.trouble, all.why};
    if (all) {
      answer.value = std::move(all.value.front());
    }
    then(answer);
  });
}

}  // namespace penstock::queue
