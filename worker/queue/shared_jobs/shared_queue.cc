#include "worker/queue/shared_jobs/shared_queue.h"

#include <algorithm>
#include <utility>

#include "shared/base/version.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
SharedQueue::SharedQueue(redis::Servers& servers, std::unique_ptr<redis::Loop> loop, User& user,
                         std::string host, const Scheduler::QueueSettings& settings,
                         int64_t keep_ms, const Promising& promising)
    : name_(settings.name),
      user_(user),
      order_(servers, settings, keep_ms),
      endings_(servers, order_.key()),
      receipts_(servers, order_.key()),
      membership_(order_, *this),
      subscription_(servers, order_.key(), std::move(loop)),
      talk_(servers, subscription_, order_.key(),
            [this](std::string_view asked) { return user_.on_asked(*this, asked); }),
      roster_(order_, *this),
      host_(std::move(host)),
      arrivals_(order_, settings, keep_ms, promising,
                {.home = [this] { return membership_.home(); },
                 .came =
                     [this](const std::string& lane, int64_t due_us) {
                       membership_.note_due(due_us, monotonic_ns());
                       wake(lane);
                     }}),
      told_ends_(settings.name, order_) {
  subscription_.start();
}

SharedQueue::~SharedQueue() { *alive_ = false; }

void SharedQueue::set(const Scheduler::QueueSettings& settings, int64_t keep_ms,
                      int64_t keep_dead_ms) {
  order_.set(settings, keep_ms);
  arrivals_.set(settings, keep_ms, keep_dead_ms);
}

void SharedQueue::advance_to(int64_t now_ns) {
  if (leaving_) {
    if (asking_.empty() && unsent() == 0) {
      over();
    }
    return;
  }
  there_ns_ = is_there() ? now_ns : there_ns_;
  membership_.advance_to(now_ns);
  std::erase_if(idle_until_ns_, [&](const auto& idle) { return idle.second <= now_ns; });
  if (now_ns >= roster_ns_) {
    roster_ns_ = now_ns + kEveryNs;
    roster_.tell(membership_.host());
    look_after_watched();
  }
  arrivals_.advance_to(now_ns);
}

int64_t SharedQueue::next_event() const {
  int64_t next_ns = talk_.next_event();
  if (!leaving_) {
    next_ns = std::min({next_ns, membership_.next_event(), roster_ns_, receipts_.next_event()});
    for (const auto& [model, idle_ns] : idle_until_ns_) {
      next_ns = std::min(next_ns, idle_ns);
    }
  }
  if (!ended_.empty() || !returns_.empty() || !cancels_.empty() || !arrivals_.empty()) {
    next_ns = std::min(next_ns, std::max(retry_ns_, monotonic_ns() + kRetryNs));
  }
  return next_ns;
}

void SharedQueue::leave() {
  flush();
  leaving_ = true;
  advance_to(monotonic_ns());
}

void SharedQueue::over() {
  if (!std::exchange(left_, true)) {
    roster_.leave();
    membership_.leave();
  }
}

HostSays SharedQueue::says() const {
  HostSays says = user_.says(*this);
  says.name = host_;
  says.version = version();
  says.lease = membership_.host();
  says.unsent = unsent();
  return says;
}

std::string SharedQueue::kept_secret() const {
  return journal() != nullptr ? journal()->secret() : std::string();
}

void SharedQueue::keep_secret(const std::string& secret) {
  if (journal() != nullptr) {
    journal()->keep_secret(secret);
  }
}

// ---- jobs are taken, and end

bool SharedQueue::may_serve(const std::string& model) const {
  const auto idle = idle_until_ns_.find(model);
  return !leaving_ && !membership_.host().empty() && !asking_.contains(model) &&
         (idle == idle_until_ns_.end() || monotonic_ns() >= idle->second) &&
         monotonic_ns() >= retry_ns_;
}

void SharedQueue::serve(const std::string& model, size_t room) {
  ask(model, std::min(room, SharedOrder::kMostTaken));
}

// A job that names no model is for all of them. What was asked before it came may be answered after
// it was heard of.
void SharedQueue::wake(const std::string& model) {
  if (model.empty()) {
    idle_until_ns_.clear();
    for (auto& [each, asked] : asking_) {
      asked.woken = true;
    }
    return;
  }
  idle_until_ns_.erase(model);
  if (const auto asked = asking_.find(model); asked != asking_.end()) {
    asked->second.woken = true;
  }
}

// While Redis has not answered, it would not look at more: what ends meanwhile goes in one trip.
void SharedQueue::flush() {
  arrivals_.flush();
  receipts_.flush(leaving_ ? std::string() : membership_.home(), monotonic_ns());
  talk_.advance_to(monotonic_ns());
  while ((serving_ == 0 ? !ended_.empty() : ended_.size() >= SharedOrder::kMostFinished) &&
         monotonic_ns() >= retry_ns_) {
    ask({}, 0);
  }
  for (auto each = returns_.begin(); each != returns_.end();) {
    const auto job = each++;
    if (!job->asking && monotonic_ns() >= retry_ns_) {
      send_back(job);
    }
  }
  for (auto each = cancels_.begin(); each != cancels_.end();) {
    const auto job = each++;
    if (!job->asking && monotonic_ns() >= retry_ns_) {
      send_cancel(job);
    }
  }
}

// What has ended under one name of this host goes along.
void SharedQueue::ask(const std::string& model, size_t most) {
  const std::string host = ended_.empty() ? membership_.host() : ended_.front().host;
  if (host != membership_.host()) {
    most = 0;
  }
  auto ended = std::make_shared<std::vector<Ended>>();
  std::vector<SharedOrder::Finished> finished;
  size_t bytes = 0;
  while (!ended_.empty() && ended_.front().host == host &&
         ended->size() < SharedOrder::kMostFinished && bytes < SharedOrder::kMostBytes) {
    bytes += ended_.front().result.size();
    ended->push_back(std::move(ended_.front()));
    ended_.pop_front();
  }
  for (const Ended& each : *ended) {
    finished.push_back({.id = each.id,
                        .fence = each.fence,
                        .result = each.result,
                        .keep_ms = each.keep_ms,
                        .how = each.how});
  }
  if (most > 0) {
    asking_[model] = {most};
  }
  ++serving_;
  ending_ += ended->size();
  const bool sent = order_.serve(host, model, most, finished,
                                 [this, model, most, host, ended, alive = alive_](
                                     SharedOrder::Answer<SharedOrder::Served>& answer) {
                                   if (*alive) {
                                     served(model, most, host, *ended, answer);
                                   }
                                 });
  if (!sent) {
    SharedOrder::Answer<SharedOrder::Served> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    served(model, most, host, *ended, none);
  }
}

void SharedQueue::served(const std::string& model, size_t most, const std::string& host,
                         std::vector<Ended>& ended,
                         SharedOrder::Answer<SharedOrder::Served>& answer) {
  --serving_;
  ending_ -= ended.size();
  const auto asked = most > 0 ? asking_.extract(model) : decltype(asking_)::node_type();
  if (!answer || answer.value.ended.size() != ended.size()) {
    if (answer.trouble == SharedOrder::Trouble::kRefused) {
      log(Level::kError, "queue " + name_ + ": Redis refuses: " + std::string(answer.why));
    }
    ended_.insert(ended_.begin(), std::make_move_iterator(ended.begin()),
                  std::make_move_iterator(ended.end()));
    retry_ns_ = monotonic_ns() + kRetryNs;
    return;
  }
  membership_.note_due(answer.value.due_us, monotonic_ns());
  size_t bytes = 0;  // there may be more than fits one answer
  for (const SharedOrder::Taken& job : answer.value.taken) {
    bytes += job.body.size();
  }
  if (most > 0 && !asked.mapped().woken && answer.value.taken.size() < most &&
      bytes < SharedOrder::kMostBytes) {
    idle_until_ns_[model] = monotonic_ns() + kIdleNs;
  }
  for (size_t i = 0; i < ended.size(); ++i) {
    const uint64_t now = fence_of(ended[i].id);
    if (answer.value.ended[i] == SharedOrder::End::kNotOurs && now != 0 && now != ended[i].fence) {
      ended[i].host = membership_.host();  // it was taken here once more: that taking ends so
      ended[i].fence = now;
      ended_.push_back(std::move(ended[i]));
      continue;
    }
    forget(ended[i].id, ended[i].fence);
    ended[i].told(answer.value.ended[i]);
    if (answer.value.ended[i] == SharedOrder::End::kEnded) {
      note_end(ended[i].id, ended[i].fence, ended[i].how, std::move(ended[i].result),
               ended[i].keep_ms);
    }
  }
  if (host != membership_.host()) {
    return;  // it has lost what it took: others take it back
  }
  for (const SharedOrder::Taken& job : answer.value.taken) {
    held_[job.id] = job.fence;
  }
  for (const SharedOrder::Taken& job : answer.value.taken) {
    user_.on_taken(*this, job);
  }
}

void SharedQueue::forget(const std::string& id, uint64_t fence) {
  if (const auto found = held_.find(id); found != held_.end() && found->second == fence) {
    held_.erase(found);
  }
}

void SharedQueue::finish(const std::string& id, std::string result, int64_t keep_ms, char how,
                         std::function<void(SharedOrder::End)> told) {
  ended_.push_back(
      {id, membership_.host(), std::move(result), keep_ms, how, fence_of(id), std::move(told)});
}

void SharedQueue::give_back(const std::string& id, uint32_t attempts,
                            std::optional<Scheduler::Cause> cause) {
  returns_.push_back({id, membership_.host(), fence_of(id), attempts, cause});
}

bool SharedQueue::cancel(std::string_view id, std::string_view result,
                         SharedOrder::Then<SharedOrder::End> then, int64_t keep_ms) {
  return order_.cancel(
      id, result,
      [this, id = std::string(id), text = std::string(result), then = std::move(then), keep_ms,
       alive = alive_](SharedOrder::Answer<SharedOrder::End>& answer) mutable {
        if (*alive && answer && answer.value == SharedOrder::End::kEnded) {
          note_end(id, 0, 'C', std::move(text), keep_ms);
        }
        then(answer);
      },
      keep_ms);
}

// Else it is said again, in a while.
bool SharedQueue::is_heard(const SharedOrder::Answer<SharedOrder::End>& end, bool& asking) {
  asking = false;
  const bool heard = end.trouble != SharedOrder::Trouble::kUnknown;
  retry_ns_ = heard ? retry_ns_ : monotonic_ns() + kRetryNs;
  return heard;
}

void SharedQueue::see_cancelled(std::string_view id, std::string result, int64_t keep_ms,
                                std::function<void(bool)> told) {
  if (cancels_.size() >= kMostCancels) {
    log(Level::kError, "queue " + name_ + ": job " + std::string(id) +
                           " is not cancelled: Redis has not heard of too many others");
    return;
  }
  cancels_.push_back({std::string(id), std::move(result), keep_ms, std::move(told)});
  send_cancel(std::prev(cancels_.end()));
}

void SharedQueue::send_cancel(std::list<Cancel>::iterator job) {
  const auto then = [this, job, alive = alive_](const SharedOrder::Answer<SharedOrder::End>& end) {
    if (!*alive || !is_heard(end, job->asking)) {
      return;
    }
    const auto told = std::move(job->told);
    cancels_.erase(job);
    if (told) {
      told(end && end.value == SharedOrder::End::kEnded);
    }
  };
  job->asking = true;
  job->asking = cancel(job->id, job->result, then, job->keep_ms);
  if (!job->asking) {
    retry_ns_ = monotonic_ns() + kRetryNs;
  }
}

// It is told, and so it holds.
void SharedQueue::note_end(const std::string& id, uint64_t fence, char how, std::string result,
                           int64_t keep_ms) {
  if (journal() != nullptr) {
    journal()->forget(id);
  }
  told_ends_.add(id, fence, how, std::move(result), keep_ms);
}

void SharedQueue::doubt() {
  if (secret()) {
    settled_ns_ = monotonic_ns() + 2 * kEveryNs;
  }
  doubted_ns_ = monotonic_ns();
  roster_ns_ = 0;  // it is told and heard at once
  told_ends_.doubt();
  if (journal() != nullptr) {
    journal()->doubt();
  }
}

void SharedQueue::send_back(std::list<Return>::iterator job) {
  const SharedOrder::Return back{
      .id = job->id, .host = job->host, .fence = job->fence, .result = {}};
  const auto then = [this, job, alive = alive_](const SharedOrder::Answer<SharedOrder::End>& end) {
    if (!*alive || !is_heard(end, job->asking)) {
      return;
    }
    forget(job->id, job->fence);
    returns_.erase(job);
  };
  job->asking = true;
  job->asking = job->cause ? order_.retry(back, job->attempts, *job->cause, then)
                           : order_.requeue(back, 0, then);
  if (!job->asking) {
    retry_ns_ = monotonic_ns() + kRetryNs;
  }
}

}  // namespace penstock::queue
