// JobsApi: what owners may ask of their jobs (CONTRACT, section 4): list, one, events, result,
// cancel, purge.
//
// A job that is not there and a job of another owner give the same 404, after the same question to
// the store. A tool asks for the operator and sees everybody's jobs (operator_api.h). The store
// answers it first, as it knows whose a job is.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/wire/messages.h"
#include "worker/queue/api/intake.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/event_stream.h"

namespace penstock::queue {

// What callers are told who ask for jobs.
inline wire::Failed not_found() {
  return {.status = 404, .code = "not_found", .message = "There is no such job of yours."};
}
inline wire::Failed no_preview() {
  return {.status = 404, .code = "not_found", .message = "There is no preview of this job now."};
}
inline wire::Failed not_over() {
  return {.status = 409,
          .code = "invalid_request",
          .message = "The job is not over: cancel it by DELETE first, then purge it."};
}
inline wire::Failed invalid(std::string_view message, std::string_view param) {
  return {.status = 400, .code = "invalid_request", .message = message, .param = param};
}

class JobsApi {
 public:
  JobsApi(Dispatcher& dispatcher, Intake& intake);
  JobsApi(const JobsApi&) = delete;
  JobsApi& operator=(const JobsApi&) = delete;

  Intake& intake() { return intake_; }
  // Answers an owner, or a tool: a tool is shown everybody's jobs, and whose they are.
  void ask(Caller& caller, uint64_t id, const wire::Ask& ask);
  void list_dead(Caller& caller, uint64_t id, const wire::Ask& ask) { list(caller, id, ask, true); }
  // The job as it is now, for a tool. Valid while `record` is, until anything changes.
  JobView operator_view(const JobRecord& record) const {
    return view(record, record.jobs_path, true);
  }

 private:
  enum class About : uint8_t { kJob, kEvents, kResult, kPreview, kCancel, kPurge };
  // A question about one job.
  struct Question {
    About about = About::kJob;
    JobId id;
    std::string who;  // as the edge names its owner
    limit::Hash128 owner;
    bool all = false;  // a tool's: every owner's
    bool head = false;
    bool websocket = false;
    EventId last;
  };
  struct Listing {
    JobQuery query;
    uint32_t statuses = ~0U;  // as they are now; the store knows only whether a job has ended
    uint32_t limit = 0;
    int rounds = 0;
    std::vector<std::string> jobs;
    OwnerEvents::Seen elsewhere;  // of these, the ones that hosts share
    std::optional<JobId> last;    // of these
    std::string jobs_path;
    std::string who;                         // as the edge names the owner; empty: it has not
    std::map<std::string, uint32_t> places;  // of those that wait elsewhere
    bool all = false;                        // a tool's
    bool stream = false;                     // is a stream's snapshot
    bool websocket = false;
  };

  void list(Caller& caller, uint64_t id, const wire::Ask& ask, bool dead);
  void begin_list(Caller& caller, uint64_t id, Listing listing);
  void stream_all(Caller& caller, uint64_t id, const wire::Ask& ask);
  void list_more(Waiter& waiter, Listing listing);
  void listed(Waiter& waiter, Listing listing, const JobPage& page);
  void add_live(const Listing& listing, JobPage& page) const;
  void about_one(Caller& caller, uint64_t id, const wire::Ask& ask);
  void answer(Waiter& waiter, Job& job, const Question& question, const JobRecord* record);
  void answer_ended(Waiter& waiter, const Question& question, const JobRecord& record);
  // `result`: of one that has completed; nullptr: the store has it.
  void say_end(Waiter& waiter, const Question& question, const JobRecord& record,
               const std::string_view* result);
  // Of queues that hosts share (jobs_api_shared.cc): of a job that is nowhere here.
  void find_shared(Waiter& waiter, const Question& question);
  void answer_shared(Waiter& waiter, const Question& question, SharedQueue& queue,
                     const SharedOrder::Known& known, const JobRecord& record,
                     std::string_view result);
  void say_rest(Waiter& waiter, const Question& question, const JobRecord& record,
                std::string_view result);
  void ask_runner(Waiter& waiter, const Question& question, SharedQueue& queue,
                  const SharedOrder::Known& known, const JobRecord& record);
  void say_position(Waiter& waiter, const Question& question, SharedQueue& queue,
                    const JobRecord& record);
  void cancel_shared(Waiter& waiter, const Question& question, SharedQueue& queue,
                     JobRecord record);
  void fail_away(Waiter& waiter);
  void say_stored(Waiter& waiter, const Question& question, const JobRecord& record);
  void say_stored_rest(Waiter& waiter, const Question& question, const JobRecord& record);
  // DELETE ?purge (jobs_api_purge.cc): nothing of a job that is over is kept.
  void purge(Waiter& waiter, const JobRecord& record);
  void purge_shared(Waiter& waiter, SharedQueue& queue, const JobRecord& record);
  void say_purged(Waiter& waiter, const JobId& id, bool purged);
  void say_preview(Waiter& waiter, const wire::Preview& preview);
  // Likewise (jobs_api_shared_lists.cc):
  static constexpr uint32_t kStreamedJobs = 50;  // the newest, that a stream begins with
  struct SharedListing;
  void list_shared(Waiter& waiter, Listing listing, JobPage page);
  void look_shared(Listing listing, JobPage page, std::function<void(SharedListing&)> then);
  static bool find_places(SharedQueue& queue, std::vector<std::string> ids,
                          const std::shared_ptr<SharedListing>& all);
  void look_for_stream(const std::string& who, const std::string& jobs_path,
                       std::function<void(OwnerEvents::Seen)> then);
  JobView listed_view(const Listing& listing, const JobRecord& record) const;
  bool is_shared(const JobRecord& record) const {
    return dispatcher_.shared() != nullptr && dispatcher_.shared()->find(record.queue) != nullptr;
  }
  void say_job(Waiter& waiter, const JobView& view, uint64_t status, bool poll);
  void fail(Waiter& waiter, const wire::Failed& failed);
  // Whether the store has too much to answer. Then the waiter was told so and is done.
  bool refuse_while_behind(Waiter& waiter);
  JobView view(const JobRecord& record, std::string_view jobs_path, bool all) const;
  JobView view(const Job& job, std::string_view jobs_path, bool all, const JobRecord* record) const;

  Dispatcher& dispatcher_;
  Intake& intake_;
};

}  // namespace penstock::queue
