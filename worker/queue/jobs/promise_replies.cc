#include "worker/queue/jobs/promise_replies.h"

#include <algorithm>

#include "shared/http/header_lines.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/reply.h"
#include "worker/queue/text/seconds.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;

namespace {

constexpr int64_t kMsPerSecond = 1000;

// Those that say how the answer is to be read. What was of that one request, such as its id and
// what it left of an engine's limits, is not told again.
std::string of_content(std::string_view lines) {
  std::string kept;
  for (http::HeaderLine line; !lines.empty();) {
    if (http::next_header_line(lines, line) != nullptr) {
      break;
    }
    const std::string_view name = line.name;
    if (http::same_name(name.substr(0, 8), "content-") ||
        http::same_name(name.substr(0, 10), "inference-")) {
      kept.append(name).append(": ").append(line.value).append("\n");
    }
  }
  return kept;
}

std::string jobs_url(const Waiter& waiter, const Job& job) {
  return waiter.jobs_path + "/" + std::string(job.id().view());
}

}  // namespace

// A job that starts at once will soon be answered; its ACCEPTED leaves with the answer if that is
// quick. Its caller has nothing to do with it before, and is spared a wake-up.
void PromiseReplies::accepted(Waiter& waiter, const Job& job, bool at_leisure) const {
  std::string& out = at_leisure ? waiter.caller->out_delayed() : waiter.caller->out();
  const bool known = job.home() != nullptr && !job.ending;
  const int64_t wait_ns = subscribers_.wait_ns(job);
  wire::append(
      out, waiter.id,
      wire::Accepted{
          .job_id = job.id().view(),
          .position = known ? subscribers_.position_of(job) : 0,
          .eta_ms = static_cast<uint64_t>(wait_ns / kNsPerMs),
          .promised = waiter.holds_promise() && job.promise == PromiseState::kMade ? 1U : 0U,
          .counts = 1});
}

// With `wait=`, only once that is over.
void PromiseReplies::promised(Waiter& waiter, const Job& job) {
  if (waiter.wait_ns == Waiter::kToTheEnd) {
    return;
  }
  if (waiter.wait_ns > 0) {
    waiter.wait_ends_ns = connections_.now_ns() + std::exchange(waiter.wait_ns, 0);
    accepted(waiter, job);
    return subscribers_.set_wait(waiter);
  }
  promised(waiter, job, subscribers_.view(job, waiter.jobs_path));
}

void PromiseReplies::promised(Waiter& waiter, const Job& job, const JobView& view) {
  accepted(waiter, job);
  const std::string headers = "Location: " + jobs_url(waiter, job) +
                              "\nPreference-Applied: respond-async\nRetry-After: " +
                              std::to_string(subscribers_.poll_after_s(view)) + "\n" +
                              std::string(waiter.duplicate ? kDuplicateHeader : "");
  append_reply(waiter.caller->out(), waiter.id,
               {.status = 202,
                .content_type = kJson,
                .headers = headers,
                .promised = waiter.holds_promise() ? 1U : 0U,
                .duplicate = waiter.duplicate ? 1U : 0U},
               render(view));
  subscribers_.leave(waiter);
}

// The job ended before its 202 was said, or within `wait=`.
void PromiseReplies::ended(Waiter& waiter, Job& job, const JobEnd& end) const {
  std::string& out = waiter.caller->out();
  accepted(waiter, job);  // it is known which job it was, also of one that failed
  if (!end.answered()) {
    wire::append(
        out, waiter.id,
        wire::Failed{.status = end.http_status, .code = end.error_code, .message = end.error});
    return;
  }
  JobRecord record;
  record.id = job.id();
  record.end = end;
  record.result_bytes = job.more->answer.bytes;
  record.result_in_file = job.more->answer.stored > 0;
  result(waiter, record, job.more->answer.tail,
         waiter.duplicate ? kDuplicateHeader : std::string_view());
}

void PromiseReplies::result(const Waiter& waiter, const JobRecord& record, std::string_view body,
                            std::string_view headers, bool earlier) const {
  std::string& out = waiter.caller->out();
  const std::string all = std::string(record.end.headers).append(headers);
  const wire::Head head{.status = record.end.http_status,
                        .content_type = record.end.content_type,
                        .headers = all,
                        .promised = waiter.holds_promise() ? 1U : 0U,
                        .duplicate = waiter.duplicate ? 1U : 0U,
                        .earlier = earlier ? 1U : 0U};
  if (record.result_in_file) {
    append_file_reply(
        out, waiter.id, head,
        record.result_path.empty() ? store_->result_path(record.id) : record.result_path,
        record.result_bytes);
  } else {
    append_reply(out, waiter.id, head, body);
  }
}

void PromiseReplies::earlier(const Waiter& waiter, const KeptAnswer& kept, bool own,
                             int64_t now_ms) const {
  JobRecord job = kept.job;
  job.end.headers = of_content(job.end.headers);
  if (own) {
    wire::append(waiter.caller->out(), waiter.id, wire::Accepted{.job_id = job.id.view()});
  }
  const int64_t age_s = std::max<int64_t>(now_ms - job.end.finished_ms, 0) / kMsPerSecond;
  result(waiter, job, kept.body, "Age: " + std::to_string(age_s) + "\n", true);
}

void PromiseReplies::stored_result(Waiter& waiter, const JobRecord& record,
                                   std::string_view headers) {
  if (record.result_in_file) {
    result(waiter, record, {}, headers);
    return subscribers_.leave(waiter);
  }
  Subscribers::ask(waiter);
  store_->read_result(
      record.id, [this, &waiter, record, headers = std::string(headers)](Result<std::string> body) {
        if (!subscribers_.answered(waiter)) {
          return;
        }
        if (body) {
          result(waiter, record, *body, headers);
        } else {
          wire::append(waiter.caller->out(), waiter.id,
                       wire::Failed{.status = 404,
                                    .code = "not_found",
                                    .message = "The result is not there any more."});
        }
        subscribers_.leave(waiter);
      });
}

void PromiseReplies::given_result(Waiter& waiter, const JobRecord& record, std::string_view body,
                                  std::string_view headers) {
  result(waiter, record, body, headers);
  subscribers_.leave(waiter);
}

}  // namespace penstock::queue
