#include "worker/queue/shared_jobs/shared_queue.h"

#include <algorithm>
#include <utility>

#include "shared/base/version.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
SharedQueue::SharedQueue(redis::Servers& servers, std::unique_ptr<redis::Loop> loop, User& user,
                         std::string host, const Scheduler::QueueSettings& settings,
                         int64_t keep_results_ns, const Promising& promising)
    : name_(settings.name),
      user_(user),
      order_(servers, settings, std::max(keep_results_ns / kNsPerMs, kLeastKeptMs)),
      endings_(servers, order_.key()),
      membership_(order_, *this),
      subscription_(servers, order_.key(), std::move(loop)),
      talk_(servers, subscription_, order_.key(),
            [this](std::string_view asked) { return user_.on_asked(*this, asked); }),
      roster_(order_, *this),
      host_(std::move(host)),
      arrivals_(order_, settings, std::max(keep_results_ns / kNsPerMs, kLeastKeptMs), promising,
                {.home = [this] { return membership_.host(); },
                 .came =
                     [this](const std::string& lane, int64_t due_us) {
                       membership_.note_due(due_us, monotonic_ns());
                       wake(lane);
                     }}),
      told_ends_(settings.name, order_) {
  subscription_.start();
}

SharedQueue::~SharedQueue() { *alive_ = false; }

void SharedQueue::set(const Scheduler::QueueSettings& settings, int64_t keep_results_ns) {
  const int64_t keep_ms = std::max(keep_results_ns / kNsPerMs, kLeastKeptMs);
  order_.set(settings, keep_ms);
  arrivals_.set(settings, keep_ms);
}

void SharedQueue::advance_to(int64_t now_ns) {
  if (leaving_) {
    if (!left_ && asking_.empty() && ended_.empty() && returns_.empty()) {
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
    next_ns = std::min({next_ns, membership_.next_event(), roster_ns_});
    for (const auto& [model, idle_ns] : idle_until_ns_) {
      next_ns = std::min(next_ns, idle_ns);
    }
  }
  if (!ended_.empty() || !returns_.empty() || !arrivals_.empty()) {
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
         ended->size() < SharedOrder::kMostFinished && bytes < kMostResultBytes) {
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
      bytes < kMostResultBytes) {
    idle_until_ns_[model] = monotonic_ns() + kIdleNs;
  }
  for (size_t i = 0; i < ended.size(); ++i) {
    forget(ended[i].id, ended[i].fence);
    ended[i].told(answer.value.ended[i]);
    if (answer.value.ended[i] == SharedOrder::End::kEnded) {
      note_end(ended[i].id, ended[i].how, std::move(ended[i].result), ended[i].keep_ms);
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
      {id, membership_.host(), std::move(result), keep_ms, how, held_.at(id), std::move(told)});
}

void SharedQueue::give_back(const std::string& id, uint32_t attempts,
                            std::optional<Scheduler::Cause> cause) {
  returns_.push_back({id, membership_.host(), held_.at(id), attempts, cause});
}

bool SharedQueue::cancel(std::string_view id, std::string_view result,
                         SharedOrder::Then<SharedOrder::End> then, int64_t keep_ms) {
  return order_.cancel(
      id, result,
      [this, id = std::string(id), text = std::string(result), then = std::move(then), keep_ms,
       alive = alive_](SharedOrder::Answer<SharedOrder::End>& answer) mutable {
        if (*alive && answer && answer.value == SharedOrder::End::kEnded) {
          note_end(id, 'C', std::move(text), keep_ms);
        }
        then(answer);
      },
      keep_ms);
}

// It is told, and so it holds.
void SharedQueue::note_end(const std::string& id, char how, std::string result, int64_t keep_ms) {
  if (journal() != nullptr) {
    journal()->forget(id);
  }
  told_ends_.add(id, how, std::move(result), keep_ms);
}

void SharedQueue::doubt() {
  if (secret()) {
    settled_ns_ = monotonic_ns() + 2 * kEveryNs;
  }
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
    if (!*alive) {
      return;
    }
    job->asking = false;
    if (end.trouble == SharedOrder::Trouble::kUnknown) {
      retry_ns_ = monotonic_ns() + kRetryNs;
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

// ---- what is heard at once

void SharedQueue::on_listening(std::string_view) {
  wake({});
  talk_.reader.on_listening();
}

// "wake LANE", "over ID", "stop ID FENCE", "paused", "resumed", "tick N", parts of answers
void SharedQueue::on_message(std::string_view, std::string_view text) {
  if (talk_.on_message(text)) {
    return;
  }
  const size_t space = std::min(text.find(' '), text.size());
  const std::string_view kind = text.substr(0, space);
  const std::string_view rest = text.substr(std::min(space + 1, text.size()));
  if (kind == "wake") {
    wake(std::string(rest));
  } else if (kind == "over") {
    if (journal() != nullptr) {
      journal()->forget(std::string(rest));
    }
    if (awaited_.erase(std::string(rest)) > 0 || watched_.contains(std::string(rest))) {
      user_.on_position(*this, std::string(rest), -1);
    }
  } else if (kind == "tick") {
    roster_.ticked(rest);
  } else if (kind == "paused" || kind == "resumed") {
    roster_.tell(membership_.host());
  } else if (kind == "stop") {
    const std::string id(rest.substr(0, rest.find(' ')));
    const auto held = held_.find(id);
    if (held != held_.end() && std::to_string(held->second) == rest.substr(rest.find(' ') + 1)) {
      held_.erase(held);
      user_.on_lost(*this, id);
    }
  }
}

// ---- membership

bool SharedQueue::runs(std::string_view id, uint64_t fence) const {
  const auto found = held_.find(std::string(id));
  return found != held_.end() && found->second == fence;
}

// What came in under another name is told by that.
void SharedQueue::on_joined() {
  subscription_.listen(channels_.emplace_back(order_.key() + "c|" + membership_.host()), *this);
  if (channels_.size() > kMostChannels) {
    subscription_.leave(channels_.front());
    channels_.pop_front();
  }
}

void SharedQueue::on_expelled(std::string_view why) {
  log(Level::kError, "queue " + name_ + ": " + std::to_string(held_.size()) +
                         " jobs stop here, and others may run them: " + std::string(why));
  for (const auto& [id, fence] : std::exchange(held_, {})) {
    user_.on_lost(*this, id);
  }
}

void SharedQueue::on_lost_data() {
  log(Level::kError, "queue " + name_ + ": Redis has lost what it had: " +
                         (journal() != nullptr
                              ? "jobs that hosts have promised are brought back by them"
                              : "jobs that were promised and had not ended are gone; have it keep "
                                "what it is told (appendonly, appendfsync always)"));
  roster_.lost_data();
  roster_.tell(membership_.host());
  doubt();
}

void SharedQueue::on_held(const std::vector<SharedOrder::Held>& held) {
  std::vector<std::string> gone;
  for (const auto& [id, fence] : held_) {
    const auto same = [&](const SharedOrder::Held& each) {
      return each.id == id && each.fence == fence;
    };
    if (std::none_of(held.begin(), held.end(), same)) {
      gone.push_back(id);
    }
  }
  for (const std::string& id : gone) {
    held_.erase(id);
    user_.on_lost(*this, id);
  }
}

// ---- what somebody waits for here

void SharedQueue::look_after_watched() {
  std::vector<std::string> ids;
  auto next = watched_.upper_bound(watched_until_);
  for (size_t i = std::min(watched_.size(), kMostWatched); i > 0; --i) {
    next = next == watched_.end() ? watched_.begin() : next;
    ids.push_back(*next++);
  }
  if (ids.empty()) {
    return;
  }
  watched_until_ = ids.back();
  const std::vector<std::string_view> views(ids.begin(), ids.end());
  order_.positions(
      views, [this, ids, alive = alive_](const SharedOrder::Answer<std::vector<int64_t>>& answer) {
        if (!*alive || !answer || answer.value.size() != ids.size()) {
          return;
        }
        for (size_t i = 0; i < ids.size(); ++i) {
          if (watched_.contains(ids[i])) {
            user_.on_position(*this, ids[i], answer.value[i]);
          }
        }
      });
}

}  // namespace penstock::queue
