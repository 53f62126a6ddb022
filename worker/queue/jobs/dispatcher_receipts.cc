// Dispatcher: what the edge has charged for promised jobs (link/edge_lines.h).
//
// Of a job of this host's own it is in the store, with the job; of one that hosts share, in the
// ReceiptJournal of the host that promised it, whose edge alone knows all that it charged. What of
// it is under limits in Redis is there, too (shared_charges.h).
#include <utility>

#include "worker/queue/jobs/dispatcher.h"

namespace penstock::queue {

void Dispatcher::let_edge_settle(Job& job, const JobEnd& end) {
  if (job.more != nullptr && !job.more->receipt.empty()) {
    charges_.over(job.shared || job.away ? shared(*job.home()->queue) : nullptr, job.id(),
                  over_of(job.more->receipt, job.home()->model, end, end.status));
  }
}

void Dispatcher::restore_over(const JobRecord& record) {
  edges_.over(sequence_of(record.id),
              over_of(record.receipt, record.model, record.end, record.status));
}

// Its end is looked for as if somebody waited for it.
void Dispatcher::recall(SharedQueue& queue, const JobRecord& record, std::string_view receipt) {
  ids_.start_after(record.id);
  Job& job = watch(queue, record, {});
  job.more->receipt = receipt;
  job.more->recalled = true;
  edges_.hold(job.edge_number(), receipt);
}

void Dispatcher::refund(const JobId& id, std::string_view receipt) {
  edges_.over(sequence_of(id),
              {.receipt = receipt, .refund = wire::Over::kAllRefunded, .model = {}});
}

// Redis does not know the job any more, so nobody knows what it used.
void Dispatcher::let_charge_stand(Job& job) {
  const std::string receipt = std::exchange(job.more->receipt, {});
  charges_.over(shared(*job.home()->queue), job.id(),
                {.receipt = receipt, .refund = wire::Over::kNoneRefunded, .model = {}});
}

void Dispatcher::settled(uint64_t number) {
  const bool was_said = edges_.settled(number);
  if (number >= wire::Over::kOfOthers) {
    return;
  }
  const bool is_shared = shared_ != nullptr && shared_->receipts().forget(number);
  if (was_said && !is_shared && store_ != nullptr) {
    store_->settled(number);
  }
}

}  // namespace penstock::queue
