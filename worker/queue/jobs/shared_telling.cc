#include "worker/queue/jobs/shared_telling.h"

#include <algorithm>
#include <utility>

#include "worker/queue/jobs/notices_of.h"
#include "worker/queue/shared_jobs/shared_record.h"

namespace penstock::queue {
namespace {

constexpr int64_t kRetryNs = 200 * kNsPerMs;
constexpr int64_t kUsPerMs = 1000;
constexpr int64_t kSpareUs = 10'000'000;        // a lease is so much longer than a hook may take
constexpr int64_t kForgetNs = 600 * kNsPerSec;  // leases that others have long had

}  // namespace

Result<std::unique_ptr<SharedTelling>> SharedTelling::open(Dispatcher& dispatcher, EventLoop& loop,
                                                           SharedJobs& shared,
                                                           const Config& config) {
  std::unique_ptr<SharedTelling> telling(new SharedTelling(dispatcher, loop, shared));
  if (Status added = loop.add(telling->webhooks_.event_fd(), EPOLLIN, telling.get()); !added) {
    return added.error();
  }
  if (Status applied = telling->apply(config); !applied) {
    return applied.error();
  }
  return telling;
}

SharedTelling::SharedTelling(Dispatcher& dispatcher, EventLoop& loop, SharedJobs& shared)
    : dispatcher_(dispatcher),
      loop_(loop),
      shared_(shared),
      webhooks_({.message = [this](const JobId& id, auto told) { message(id, told); },
                 .tried = [this](const JobId& id, uint32_t tries, int64_t due_ms,
                                 Webhooks::Fate fate) { tried(id, tries, due_ms, fate); },
                 .due = [this](const DueQuery& query, auto told) { due(query, told); },
                 .gone = [this](const std::string& url) { gone_ = url; }},
                std::random_device{}(), kBounds),
      notices_(loop,
               {.due = [this](const NoticeQuery& query, auto told) { due_notices(query, told); },
                .tried = [this](const DueNotice& notice, uint32_t tries, int64_t due_ms,
                                auto on_done) { noticed(notice, tries, due_ms, on_done); },
                .keep = [](const std::vector<std::string>&) {}}),
      feed_(dispatcher, shared) {
  dispatcher_.on_shared_callback_due = [this] { webhooks_.look_soon(); };
}

SharedTelling::~SharedTelling() {
  loop_.remove(webhooks_.event_fd(), this);
  dispatcher_.on_shared_callback_due = nullptr;
  dispatcher_.on_event = nullptr;
}

Status SharedTelling::apply(const Config& config) {
  notices_.advance_to(dispatcher_.connections().now_ns(), dispatcher_.wall_ms());
  notices_.apply(config.notify);
  std::erase_if(notices_held_, [&](const auto& each) {  // of hooks that are gone, or others now
    const auto same = [&](const HookConfig& hook) { return hook.name == each.first.first; };
    const auto was = std::find_if(hooks_.begin(), hooks_.end(), same);
    const auto is = std::find_if(config.notify.begin(), config.notify.end(), same);
    return is == config.notify.end() || was == hooks_.end() || !(*is == *was);
  });
  hooks_ = config.notify;
  hook_leases_us_.clear();
  for (const HookConfig& hook : config.notify) {
    hook_leases_us_[hook.name] = hook.timeout_ns / kNsPerUs + kSpareUs;
  }
  dispatcher_.tells_hooks = notices_.wanted();
  feed_.set(config.redis);
  return webhooks_.apply(config.webhooks);
}

void SharedTelling::on_events(uint32_t) {
  dispatcher_.connections().read_clock();
  webhooks_.take_responses(dispatcher_.connections().now_ns(), dispatcher_.wall_ms());
}

void SharedTelling::advance_to(int64_t now_ns, int64_t now_ms) {
  now_ns_ = now_ns;
  webhooks_.advance_to(now_ns, now_ms);
  notices_.advance_to(now_ns, now_ms);
  feed_.advance_to(now_ns);
  if (retry_ns_ <= now_ns) {
    retry_ns_ = INT64_MAX;
    for (auto each = said_.begin(); each != said_.end();) {
      const auto said = each++;
      if (!said->asking) {
        send(said);
      }
    }
  }
  if (sweep_ns_ <= now_ns) {
    sweep_ns_ = now_ns + kEveryMs * kNsPerMs;
    for (const auto& queue : shared_.queues()) {
      sweep(*queue);
    }
  }
}

int64_t SharedTelling::next_event() const {
  return std::min({webhooks_.next_event(), notices_.next_event(), feed_.next_event(), retry_ns_,
                   shared_.queues().empty() ? INT64_MAX : sweep_ns_});
}

void SharedTelling::sweep(SharedQueue& queue) {
  queue.order().sweep([this, &queue](const SharedOrder::Answer<bool>& more) {
    if (more && more.value) {
      sweep(queue);
    }
  });
}

// ---- what Redis has

// Of all queues.
void SharedTelling::take(const std::string& kind, size_t most, int64_t lease_us, size_t bytes,
                         const std::function<void(Page&)>& then) {
  const auto page = std::make_shared<Page>();
  page->missing = shared_.queues().size();
  if (page->missing == 0) {
    return then(*page);
  }
  for (const auto& queue : shared_.queues()) {
    const auto answered = [this, page, then,
                           queue = queue.get()](SharedOrder::Answer<Endings::Page>& answer) {
      if (answer) {
        page->all += answer.value.all;
        for (Endings::Taken& each : answer.value.taken) {
          page->leases.push_back({queue, std::move(each), now_ns_});
        }
        std::move(answer.value.gone.begin(), answer.value.gone.end(),
                  std::back_inserter(page->gone));
        if (answer.value.due_us != SharedOrder::kNever) {
          page->in_ms = std::min(page->in_ms, answer.value.due_us / kUsPerMs + 1);
        }
      }
      if (--page->missing == 0) {
        then(*page);
      }
    };
    if (!queue->endings().take(kind, most, lease_us, bytes, answered)) {
      SharedOrder::Answer<Endings::Page> none;
      none.trouble = SharedOrder::Trouble::kUnknown;
      answered(none);
    }
  }
}

void SharedTelling::say(Said said) {
  said_.push_back(std::move(said));
  send(std::prev(said_.end()));
}

// Not longer than the lease lasts: then it is another's.
void SharedTelling::send(std::list<Said>::iterator said) {
  const auto over = [this, said] {
    const auto done = std::move(said->done);
    said_.erase(said);
    if (done) {
      done();
    }
  };
  const auto answered = [this, said, over](const SharedOrder::Answer<bool>& answer) {
    said->asking = false;
    if (answer.trouble != SharedOrder::Trouble::kUnknown || said->until_ns <= now_ns_) {
      return over();
    }
    retry_ns_ = std::min(retry_ns_, now_ns_ + kRetryNs);
  };
  said->asking = true;
  if (!said->queue->endings().told(said->kind, said->ending, said->after_us, said->outcome,
                                   said->gone, answered)) {
    SharedOrder::Answer<bool> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    answered(none);
  }
}

// ---- owners' URLs

void SharedTelling::due(const DueQuery& query, const std::function<void(DuePage)>& told) {
  if (query.owner) {
    return told({});  // they come back when their lease is over
  }
  std::erase_if(urls_,
                [&](const auto& each) { return each.second.taken_ns + kForgetNs < now_ns_; });
  take(std::string(Endings::kUrls), query.limit, Endings::kLeaseUs, 0, [this, told](Page& page) {
    DuePage due;
    for (const std::string& url : page.gone) {
      webhooks_.set_gone(url);
    }
    for (Lease& lease : page.leases) {
      if (const auto id = parse_job_id(lease.ending.id)) {
        due.due.push_back({.id = *id,
                           .owner = lease.ending.owner,
                           .tries = lease.ending.tries,
                           .due_ms = webhooks_.steady_ms()});
        urls_[lease.ending.id] = std::move(lease);
      }
    }
    due.next_ms = webhooks_.steady_ms() + page.in_ms;
    due.all = page.all;
    told(std::move(due));
  });
}

void SharedTelling::message(const JobId& id,
                            const std::function<void(std::optional<Webhooks::Message>)>& told) {
  const std::string name(id.view());
  const auto held = urls_.find(name);
  const auto looked = [this, name, told](const SharedOrder::Answer<Endings::Ending>& answer) {
    const auto lease = urls_.find(name);
    if (!answer || answer.value.fence.empty() || lease == urls_.end()) {
      urls_.erase(name);  // it is another's, or is taken again
      return told(std::nullopt);
    }
    lease->second.ending.fence = answer.value.fence;
    JobRecord record;
    std::string_view result;
    if (!decode(answer.value.known, record, result) || record.callback.empty()) {
      return told(std::nullopt);
    }
    told(Webhooks::Message{record.callback, ending_json(view_of(record), name_of(record.status)),
                           trace_headers(record.trace, dispatcher_.tells_spans())});
  };
  if (held == urls_.end() ||
      !held->second.queue->endings().look(Endings::kUrls, name, held->second.ending.fence,
                                          kMostRecordBytes, Endings::kLeaseUs, looked)) {
    SharedOrder::Answer<Endings::Ending> none;
    none.trouble = SharedOrder::Trouble::kUnknown;
    looked(none);
  }
}

void SharedTelling::tried(const JobId& id, uint32_t tries, int64_t due_ms, Webhooks::Fate fate) {
  static_assert(static_cast<int>(Webhooks::Fate::kGone) ==
                static_cast<int>(Endings::Outcome::kGone));
  const auto held = urls_.find(std::string(id.view()));
  if (held == urls_.end()) {
    return;
  }
  Lease lease = std::move(held->second);
  urls_.erase(held);
  lease.ending.tries = tries;
  const int64_t after_ms = std::max<int64_t>(due_ms - webhooks_.steady_ms(), 0);
  say({.queue = lease.queue,
       .kind = std::string(Endings::kUrls),
       .ending = std::move(lease.ending),
       .after_us = due_ms == 0 ? SharedOrder::kNever : after_ms * kUsPerMs,
       .outcome = static_cast<Endings::Outcome>(fate),
       .gone = std::exchange(gone_, {}),
       .done = {},
       .until_ns = now_ns_ + Endings::kLeaseUs * kNsPerUs});
}

// ---- the operator's hooks

// Those that have a place.
size_t SharedTelling::under_way(const std::string& hook) const {
  const auto held = std::count_if(notices_held_.begin(), notices_held_.end(),
                                  [&](const auto& each) { return each.first.first == hook; });
  const auto said = std::count_if(said_.begin(), said_.end(), [&](const Said& each) {
    return each.kind == Endings::hook(hook);
  });
  return static_cast<size_t>(held + said);
}

void SharedTelling::due_notices(const NoticeQuery& query,
                                const std::function<void(NoticePage)>& told) {
  std::erase_if(notices_held_, [&](const auto& each) {  // they are others' by now
    const auto lease = hook_leases_us_.find(each.first.first);
    return lease == hook_leases_us_.end() ||
           each.second.taken_ns + lease->second * kNsPerUs < now_ns_;
  });
  const std::string kind = Endings::hook(query.hook);
  const size_t places = query.limit / 2;  // as Notices asks
  const size_t taken = under_way(query.hook);
  if (taken >= places) {
    return told({.next_ms = notices_.steady_ms() + kEveryMs});
  }
  take(kind, places - taken, hook_leases_us_[query.hook], kMostRecordBytes,
       [this, kind, hook = query.hook, told](Page& page) {
         NoticePage due;
         due.next_ms = notices_.steady_ms() + page.in_ms;
         for (Lease& lease : page.leases) {
           JobRecord record;
           std::string_view result;
           const auto id = parse_job_id(lease.ending.id);
           std::vector<Notice> notices;
           if (id && decode(lease.ending.known, record, result)) {
             notices = notices_of(notices_, view_of(record), record.end.dead);
           }
           const auto mine = std::find_if(notices.begin(), notices.end(),
                                          [&](const Notice& each) { return each.hook == hook; });
           if (mine == notices.end()) {  // it does not want such ends
             say({lease.queue,
                  kind,
                  std::move(lease.ending),
                  SharedOrder::kNever,
                  Endings::Outcome::kNone,
                  {},
                  {},
                  now_ns_ + hook_leases_us_[hook] * kNsPerUs});
             continue;
           }
           due.due.push_back({*id, hook, record.end.finished_ms, lease.ending.tries,
                              std::move(mine->fields), std::move(mine->json)});
           notices_held_[{hook, lease.ending.id}] = std::move(lease);
         }
         told(std::move(due));
       });
}

void SharedTelling::noticed(const DueNotice& notice, uint32_t tries, int64_t due_ms,
                            std::function<void()> on_done) {
  const auto held = notices_held_.find({notice.hook, std::string(notice.id.view())});
  if (held == notices_held_.end()) {
    return on_done();
  }
  Lease lease = std::move(held->second);
  notices_held_.erase(held);
  lease.ending.tries = tries;
  const int64_t after_ms = std::max<int64_t>(due_ms - notices_.steady_ms(), 0);
  say({.queue = lease.queue,
       .kind = Endings::hook(notice.hook),
       .ending = std::move(lease.ending),
       .after_us = due_ms == 0 ? SharedOrder::kNever : after_ms * kUsPerMs,
       .outcome = Endings::Outcome::kNone,
       .gone = {},
       .done = std::move(on_done),
       .until_ns = now_ns_ + hook_leases_us_[notice.hook] * kNsPerUs});
}

}  // namespace penstock::queue
