#include "worker/queue/jobs/shared_charges.h"

#include <string>

#include "shared/wire/receipt.h"
#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

bool is_refunded(JobStatus status) {
  return status == JobStatus::kFailed || status == JobStatus::kExpired;
}

uint64_t sealed_of(Receipts::Whose whose) {
  return whose == Receipts::Whose::kSettled ? wire::Over::kElsewhere
         : whose == Receipts::Whose::kOurs  ? wire::Over::kAnywhere
                                            : wire::Over::kAsOthers;
}

}  // namespace

wire::Over over_of(std::string_view receipt, std::string_view model, const JobEnd& end,
                   JobStatus status) {
  return {.receipt = receipt,
          .refund = is_refunded(status) ? wire::Over::kAllRefunded : wire::Over::kUnusedRefunded,
          .model = model,
          .prompt_tokens = end.prompt_tokens,
          .completion_tokens = end.completion_tokens,
          .device_ns = end.device_ns,
          .estimated = end.estimated ? 1U : 0U};
}

void SharedCharges::use(SharedJobs& shared) {
  for (const auto& queue : shared.queues()) {
    queue->receipts().use(*this);
  }
}

void SharedCharges::promised(SharedQueue& queue, const JobId& id, std::string_view receipt) {
  if (std::string sealed = wire::sealed_part(receipt); !sealed.empty()) {
    queue.receipts().note(std::string(id.view()), std::move(sealed));
  }
}

void SharedCharges::over(SharedQueue* queue, const JobId& id, const wire::Over& over) {
  if (queue == nullptr || wire::sealed_part(over.receipt).empty()) {
    return edges_.over(sequence_of(id), over);
  }
  const auto told = [this, id, over, receipt = std::string(over.receipt),
                     model = std::string(over.model)](Receipts::Whose whose) {
    if (whose == Receipts::Whose::kSettled) {
      log(Level::kInfo, "what job " + std::string(id.view()) +
                            " was charged under limits in Redis has been settled by another host");
    }
    wire::Over its = over;
    its.receipt = receipt;
    its.model = model;
    its.sealed = sealed_of(whose);
    edges_.over(sequence_of(id), its);
  };
  queue->receipts().settle(std::string(id.view()), told);
}

void SharedCharges::on_inherited(const Receipts::Inherited& inherited) {
  JobRecord record;
  std::string_view answer;
  const std::string receipt = wire::sealed_part(inherited.receipt);
  if (receipt.empty() || !decode(inherited.known, record, answer)) {
    return log(Level::kError, "what was charged for job " + inherited.id +
                                  " stands: its host is gone, and what Redis has of it is none");
  }
  log(Level::kInfo, "the host that promised job " + inherited.id +
                        " is gone: what it charged under limits in Redis is settled here");
  wire::Over over = over_of(receipt, record.model, record.end, record.status);
  over.sealed = wire::Over::kAnywhere;
  edges_.over(wire::Over::kOfOthers + ++inherited_, over);
}

}  // namespace penstock::queue
