#include "worker/ctl/submission.h"

#include <algorithm>

#include "shared/base/clock.h"
#include "worker/ctl/table.h"
#include "worker/ctl/verbatim_json.h"

namespace penstock::ctl {
namespace {

constexpr int64_t kTellNs = 200 * kNsPerMs;

}  // namespace

Submission::Submission(Edge& edge, BatchFile& batch, ResultsFile& results, const Pace& pace)
    : edge_(edge), batch_(batch), results_(results), pace_(pace), start_ns_(monotonic_ns()) {
  progress_.all = batch.size();
  for (size_t i = 0; i < batch.size(); ++i) {
    if (results.has(batch.custom_id(i))) {
      ++progress_.done;
      progress_.failed += results.succeeded(batch.custom_id(i)) ? 0 : 1;
    }
  }
  progress_.done_before = progress_.done;
}

Status Submission::run(const std::function<void(const Progress&)>& tell) {
  for (;;) {
    if (Status taken = take_more(); !taken) {
      return taken;
    }
    int64_t now_ns = monotonic_ns();
    note(now_ns);
    tell(progress_);
    if (tasks_.empty()) {
      return refusal_.empty() ? Status(Ok{}) : Error{refusal_};
    }
    if (Status asked = ask_due(now_ns); !asked) {
      return asked;
    }
    int64_t next_ns = now_ns + kTellNs;
    for (const Task& task : tasks_) {
      next_ns = task.asked ? next_ns : std::min(next_ns, due_ns(task));
    }
    const int64_t timeout_ms = std::max<int64_t>((next_ns - now_ns + kNsPerMs - 1) / kNsPerMs, 0);
    const auto told = edge_.wait(timeout_ms);
    now_ns = monotonic_ns();
    for (auto task = tasks_.begin(); task != tasks_.end();) {
      const auto next = std::next(task);
      if (std::find(told.begin(), told.end(), &task->question) != told.end()) {
        task->asked = false;
        if (Status fine = heard(*task, now_ns); !fine) {
          return fine;
        }
      }
      task = next;
    }
  }
}

Status Submission::take_more() {
  for (; tasks_.size() < pace_.concurrency && next_ < batch_.size(); ++next_) {
    if (results_.has(batch_.custom_id(next_))) {
      continue;
    }
    auto request = batch_.read(next_);
    if (!request) {
      return request.error();
    }
    Task& task = tasks_.emplace_back();
    task.request = *std::move(request);
    task.question.path = task.request.url;
    task.question.body = task.request.body;
    task.question.idempotency_key = task.request.key;
  }
  return Ok{};
}

int64_t Submission::due_ns(const Task& task) const {
  return task.promised ? task.due_ns : std::max({task.due_ns, hold_ns_, next_request_ns_});
}

Status Submission::ask_due(int64_t now_ns) {
  for (Task& task : tasks_) {
    if (task.asked || due_ns(task) > now_ns) {
      continue;
    }
    if (Status asked = edge_.ask(task.question); !asked) {
      return asked;
    }
    task.asked = true;
    if (!task.promised) {
      next_request_ns_ = now_ns + pace_.interval_ns;
    }
  }
  return Ok{};
}

Status Submission::heard(Task& task, int64_t now_ns) {
  const EdgeAnswer& answer = task.question.answer;
  if (answer.too_long) {
    return finish(task, error_line(task.request, "too_large", answer.body), false);
  }
  const bool of_a_job = task.promised || !answer.job_id.empty();
  const Heard heard{answer.status, answer.retry_after_s, of_a_job};
  const NextStep step = next_step(heard, task.tries + 1);
  task.due_ns = now_ns + step.wait_ms * kNsPerMs;
  task.tries = answer.status == 202 ? 0 : task.tries + 1;
  switch (step.kind) {
    case NextStep::kGiveUp:
      return Error{"the edge cannot be reached: " + answer.body};
    case NextStep::kAgain:
      hold_ns_ = step.for_all && !task.promised ? std::max(hold_ns_, task.due_ns) : hold_ns_;
      return Ok{};
    case NextStep::kFinal:
      return finish_with_answer(task);
    case NextStep::kPutOff:
      return put_off(task);
    case NextStep::kPoll:
      break;
  }
  if (!task.promised) {
    const std::string path = edge_.path_of(answer.location);
    if (path.empty()) {
      return finish(task,
                    error_line(task.request, "no_location",
                               "it was promised, but its Location leads nowhere on this edge"),
                    false);
    }
    task.promised = true;
    task.question.path = path + "/result";
    task.question.body.clear();
  }
  return Ok{};
}

Status Submission::finish_with_answer(const Task& task) {
  const EdgeAnswer& answer = task.question.answer;
  return finish(task, result_line(task.request, {answer.status, answer.job_id, answer.body}),
                answer.status >= 200 && answer.status < 300);
}

Status Submission::finish(const Task& task, const std::string& line, bool good) {
  if (Status written = results_.append(line); !written) {
    return written;
  }
  ++progress_.done;
  progress_.failed += good ? 0 : 1;
  put_off_ = 0;
  forget(task);
  return Ok{};
}

// It has no result: with the right key, it is asked for again.
Status Submission::put_off(const Task& task) {
  const EdgeAnswer& answer = task.question.answer;
  const auto problem = VerbatimObject::read(answer.body);
  const std::string detail = problem ? printable(problem->text("detail")) : "";
  refusal_ = "the edge refuses this caller: " + std::to_string(answer.status) +
             (detail.empty() ? "" : " " + detail) +
             "; give the right key in PENSTOCK_KEY or by --key-file";
  forget(task);
  return ++put_off_ < kMostPutOff ? Status(Ok{}) : Error{refusal_};
}

void Submission::forget(const Task& task) {
  tasks_.remove_if([&](const Task& each) { return &each == &task; });
}

void Submission::note(int64_t now_ns) {
  progress_.at_work = static_cast<size_t>(std::count_if(
      tasks_.begin(), tasks_.end(), [](const Task& task) { return task.asked || task.promised; }));
  progress_.waiting_s = hold_ns_ > now_ns ? (hold_ns_ - now_ns) / kNsPerSec + 1 : 0;
  progress_.seconds = static_cast<double>(now_ns - start_ns_) / kNsPerSec;
}

}  // namespace penstock::ctl
