// WorkerSession: as one penstockd hands it to the next.
#include <algorithm>
#include <cstring>

#include "worker/queue/bound/turns.h"
#include "worker/queue/jobs/worker_session.h"

namespace penstock::queue {

void WorkerSession::hand_over(CarriedWorker& worker, CarriedTexts& texts) const {
  texts.connection = carry();
  wire::append(texts.heartbeat, 0, heartbeat_);
  worker.has_fd = 1;
  worker.fd = static_cast<uint64_t>(fd());
  worker.unread = texts.connection.unread;
  worker.to_skip = texts.connection.to_skip;
  worker.unsent = texts.connection.unsent;
  worker.is_ready = ready_ ? 1 : 0;
  worker.draining = draining_ ? 1 : 0;
  worker.checks = static_cast<uint64_t>(checks_);
  worker.said_slots = slots_;
  worker.credit = credit_;
  worker.capacity = capacity_;
  worker.open_slots = open_slots_;
  worker.is_out = is_out_ ? 1 : 0;
  worker.reopens_ns = reopens_ns_;
  worker.why_closed = why_closed_;
  worker.chat = chat_;
  worker.heartbeat = std::string_view(texts.heartbeat).substr(wire::kHeaderBytes);
  worker.last_number = last_number_;
  worker.last_heard_ns = last_heard_ns_;
}

void WorkerSession::hand_over_given(RecordWriter& record) const {
  for (const Given& given : given_) {
    record.add(
        CarriedGiven{.job_high = given.job->ulid.high,
                     .job_low = given.job->ulid.low,
                     .number = given.number,
                     .sent = given.sent ? 1U : 0U,
                     .given_ns = given.given_ns,
                     .priority = given.priority,
                     .head_ns = given.head_ns,
                     .paced_ns = given.paced.at_ns,
                     .paced_tokens = given.paced.tokens,
                     .paced_windows = {reinterpret_cast<const char*>(given.paced.windows.data()),
                                       sizeof given.paced.windows},
                     .tokens = given.tokens});
  }
}

void WorkerSession::take_over(const CarriedWorker& worker) {
  Connection::take_over(worker.unread, worker.to_skip, worker.unsent);
  const auto count = [](uint64_t value) {
    return static_cast<uint32_t>(std::min<uint64_t>(value, kMaxCredit));
  };
  ready_ = worker.is_ready != 0;
  draining_ = worker.draining != 0;
  checks_ = static_cast<wire::Checking>(worker.checks);
  slots_ = count(worker.said_slots);
  credit_ = count(worker.credit);
  capacity_ = count(worker.capacity);
  open_slots_ = static_cast<uint32_t>(worker.open_slots);
  is_out_ = worker.is_out != 0;
  reopens_ns_ = worker.reopens_ns;
  why_closed_ = worker.why_closed;
  chat_ = worker.chat;
  wire::parse(worker.heartbeat, heartbeat_);
  last_number_ = worker.last_number;
  last_heard_ns_ = worker.last_heard_ns;
  if (said_hello()) {
    serving_ = &events_.serving(lane_);
  }
}

void WorkerSession::take_over(const CarriedGiven& given, Job* job) {
  if (job == nullptr) {
    return wire::append_empty(out(), wire::FrameType::kCancel, given.number);
  }
  ++seat_.budget().running;
  job->extra().worker = this;
  job->more->number = given.number;
  Given& taken = given_.emplace_back(Given{.number = given.number,
                                           .job = job,
                                           .sent = given.sent != 0,
                                           .given_ns = given.given_ns,
                                           .priority = given.priority,
                                           .head_ns = given.head_ns,
                                           .paced = {},
                                           .tokens = given.tokens});
  taken.paced.at_ns = given.paced_ns;
  taken.paced.tokens = given.paced_tokens;
  if (given.paced_windows.size() == sizeof taken.paced.windows) {
    std::memcpy(taken.paced.windows.data(), given.paced_windows.data(), given.paced_windows.size());
  }
  if (pace_ != nullptr) {
    pace_->go_on();
  }
}

}  // namespace penstock::queue
