#include "worker/queue/jobs/event_feed.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "worker/queue/shared_jobs/shared_record.h"
#include "worker/queue/shared_order/script_request.h"
#include "worker/queue/text/log.h"
#include "worker/queue/traces/job_trace.h"

namespace penstock::queue {
namespace {

constexpr int64_t kNsPerMsOfDevice = kNsPerMs;

// Names and values, with \0 behind each.
std::string event_of(const JobRecord& job) {
  std::string text;
  const auto add = [&](std::string_view name, std::string value) {
    std::replace(value.begin(), value.end(), '\0', ' ');
    text.append(name).push_back('\0');
    text.append(value).push_back('\0');
  };
  const JobEnd& end = job.end;
  add("id", std::string(job.id.view()));
  add("status", std::string(name_of(job.status)));
  add("queue", job.queue);
  add("model", job.model);
  add("tier", job.tier);
  add("owner", job.owner.lo == 0 ? "" : fmt::format("{:016x}", job.owner.lo));
  add("label", job.label);
  add("trace_id", std::string(trace_id_in(job.trace)));
  add("created_ms", std::to_string(job.created_ms));
  add("started_ms", std::to_string(end.started_ms));
  add("finished_ms", std::to_string(end.finished_ms));
  add("attempts", std::to_string(end.attempts));
  add("http_status", std::to_string(end.http_status));
  add("error_code", end.error_code);
  add("prompt_tokens", std::to_string(end.prompt_tokens));
  add("completion_tokens", std::to_string(end.completion_tokens));
  add("device_ms", std::to_string(end.device_ns / kNsPerMsOfDevice));
  add("estimated", end.estimated ? "1" : "0");
  return text;
}

}  // namespace

void EventFeed::set(const RedisConfig& redis) {
  most_ = redis.events;
  key_ = redis.prefix + ":events";
  dispatcher_.on_event = nullptr;
  if (most_ > 0) {
    dispatcher_.on_event = [this](const JobRecord& job) { add(job); };
  }
}

void EventFeed::add(const JobRecord& job) {
  own_.push_back(event_of(job));
  trim();
}

void EventFeed::trim() {
  for (; own_.size() > kMostKept; own_.pop_front()) {
    if (dropped_++ == 0) {
      log(Level::kError, "the feed of events misses some of this host's: Redis does not answer");
    }
  }
}

int64_t EventFeed::next_event() const {
  return most_ == 0 ? INT64_MAX : !own_.empty() && !sending_ ? send_ns_ : look_ns_;
}

void EventFeed::advance_to(int64_t now_ns) {
  now_ns_ = now_ns;
  if (most_ == 0) {
    return;
  }
  if (!sending_ && !own_.empty() && send_ns_ <= now_ns) {
    send_own();
  }
  if (look_ns_ <= now_ns) {
    look_ns_ = now_ns + kEveryNs;
    for (const auto& queue : shared_.queues()) {
      look(*queue);
    }
  }
}

void EventFeed::look(SharedQueue& queue) {
  queue.endings().take(Endings::kFeed, kAtOnce, kLeaseUs, kMostRecordBytes,
                       [this, &queue](const SharedOrder::Answer<Endings::Page>& page) {
                         if (page && !page.value.taken.empty()) {
                           taken(queue, page.value.taken);
                         }
                       });
}

void EventFeed::taken(SharedQueue& queue, const std::vector<Endings::Taken>& ends) {
  std::vector<std::string> events;
  for (const Endings::Taken& each : ends) {
    JobRecord record;
    std::string_view result;
    if (decode(each.known, record, result)) {
      events.push_back(event_of(record));
    }
  }
  send(events, [this, &queue, ends](bool there) {
    if (!there) {
      return;  // its lease ends
    }
    for (const Endings::Taken& each : ends) {
      queue.endings().told(Endings::kFeed, each, SharedOrder::kNever, Endings::Outcome::kNone, {},
                           [](const SharedOrder::Answer<bool>&) {});
    }
    if (ends.size() == kAtOnce) {
      look(queue);
    }
  });
}

void EventFeed::send_own() {
  std::vector<std::string> events;
  while (!own_.empty() && events.size() < kAtOnce) {
    events.push_back(std::move(own_.front()));
    own_.pop_front();
  }
  sending_ = true;
  send(events, [this, events](bool there) {
    sending_ = false;
    if (!there) {
      own_.insert(own_.begin(), events.begin(), events.end());
      trim();
      send_ns_ = now_ns_ + kEveryNs;
    } else if (std::exchange(dropped_, 0) > 0) {
      log(Level::kInfo, "the feed of events goes on");
    }
  });
}

void EventFeed::send(const std::vector<std::string>& events,
                     const std::function<void(bool)>& then) {
  ScriptWords words;
  words.number(most_);
  for (const std::string& each : events) {
    words.text(each);
  }
  const auto read = [](const redisReply& answer, bool& there) { return there = is_number(answer); };
  const SharedOrder::Then<bool> answered = [then](const SharedOrder::Answer<bool>& answer) {
    then(answer && answer.value);
  };
  if (!ask_script<bool>(shared_.servers(), order_script::kEvent, key_, words, read, answered,
                        alive_)) {
    then(false);
  }
}

}  // namespace penstock::queue
