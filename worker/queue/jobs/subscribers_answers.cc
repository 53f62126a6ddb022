// Subscribers: those who wait for the answer itself, and what their streams say before it comes.
#include <algorithm>

#include "shared/http/body_fields.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/subscribers.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {

using Kind = Waiter::Kind;

namespace {

constexpr uint64_t kFirstErrorStatus = 400;

// Whether an answer may follow in a stream of events that has begun with status 200.
bool fits_a_stream(const wire::Head& head) {
  return head.status / 100 == 2 && head.content_type.starts_with("text/event-stream");
}

// Some of what the engine said.
void keep(Misfit& misfit, std::string_view bytes) {
  misfit.is_json = misfit.is_json && bytes.size() <= Misfit::kMostBytes - misfit.body.size();
  misfit.body.append(misfit.is_json ? bytes : "");
}

// Calls tell(failed) with what its caller is told of it.
template <typename Tell>
void explain(Misfit& misfit, Tell&& tell) {
  if (misfit.status < kFirstErrorStatus) {
    return tell(wire::Failed{.status = 502,
                             .code = "engine_failed",
                             .message = "The engine's answer is no stream of events."});
  }
  const std::string message = "The engine answered " + std::to_string(misfit.status) + ".";
  wire::Failed failed{
      .status = misfit.status, .code = code_of_answer(misfit.status), .message = message};
  const std::string_view names[] = {"error"};
  http::BodyFields fields(names);
  const bool whole = misfit.is_json && fields.feed(misfit.body);
  if (whole && fields[0].type == http::BodyField::Type::kObject) {
    std::replace_if(  // none is in a string: there they are escaped
        misfit.body.begin(), misfit.body.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    failed.json = misfit.body;
  }
  tell(failed);
}

}  // namespace

bool Subscribers::lags(const Job& job) const {
  const auto enough = static_cast<size_t>(max_unsent_) / 2;
  bool any = false;
  for (const Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    if (waiter->kind == Kind::kAnswer) {
      if (waiter->caller->unsent() <= enough) {
        return false;
      }
      any = true;
    }
  }
  for (const Waiter* waiter = job.waiters(); any && waiter != nullptr; waiter = waiter->next) {
    if (waiter->kind == Kind::kAnswer) {
      waiter->caller->tell_when_drained(enough);
    }
  }
  return any;
}

// What is made ahead of the one who reads fastest is within a window.
void Subscribers::drop_if_slow(Waiter& waiter) {
  if (waiter.caller->unsent() <= static_cast<size_t>(max_unsent_) + wire::kFirstWindowBytes) {
    return;
  }
  wire::append(waiter.caller->out(), waiter.id,
               wire::Failed{.status = 502,
                            .code = "engine_failed",
                            .message = "The answer was cut short: it was not read fast enough."});
  leave(waiter);
}

void Subscribers::forward(Job& job, std::string_view frame, std::string_view bytes, bool whole) {
  each(job, Kind::kAnswer, [&](Waiter& waiter) {
    if (waiter.news != nullptr && waiter.news->misfit != nullptr) {
      return keep(*waiter.news->misfit, bytes);
    }
    std::string& out = waiter.caller->out();
    out.append(frame);
    wire::set_frame_id(out.data() + out.size() - frame.size(), waiter.id);
    if (!whole) {
      drop_if_slow(waiter);
    }
  });
}

void Subscribers::forward_head(Job& job, const wire::Head& head) {
  const auto microseconds = [](int64_t ns) { return static_cast<uint64_t>(ns / kNsPerUs); };
  wire::Head told = head;
  if (!job.away) {  // else it is not known here
    told.queue_us = microseconds(job.started_ns() - job.arrived_ns());
    told.run_us = std::max<uint64_t>(microseconds(connections_.now_ns() - job.started_ns()), 1);
  }
  each(job, Kind::kAnswer, [&](Waiter& waiter) {
    if (waiter.news != nullptr && waiter.news->opened && !fits_a_stream(head)) {
      waiter.news->misfit = std::make_unique<Misfit>(
          Misfit{.status = head.status, .is_json = head.content_type.starts_with(kJson)});
      return;
    }
    wire::Head its = told;
    const std::string headers =
        std::string(head.headers).append(waiter.duplicate ? kDuplicateHeader : "");
    its.headers = headers;
    its.duplicate = waiter.duplicate ? 1 : 0;
    wire::append(waiter.caller->out(), waiter.id, its);
  });
}

void Subscribers::replay(Waiter& waiter, const Job& job) {
  const Answer& answer = job.more->answer;
  std::string& out = waiter.caller->out();
  const std::string headers = std::string(answer.headers).append(kDuplicateHeader);
  wire::append(out, waiter.id,
               wire::Head{.status = answer.status,
                          .content_type = answer.content_type,
                          .headers = headers,
                          .duplicate = 1});
  wire::append_chunk(out, waiter.id, answer.tail);
}

void Subscribers::complete(Job& job, std::string_view done_frame) {
  each(job, Kind::kAnswer, [&](Waiter& waiter) {
    std::string& out = waiter.caller->out();
    if (waiter.news != nullptr && waiter.news->misfit != nullptr) {
      explain(*waiter.news->misfit,
              [&](const wire::Failed& failed) { wire::append(out, waiter.id, failed); });
      return leave(waiter);
    }
    out.append(done_frame);
    wire::set_frame_id(out.data() + out.size() - done_frame.size(), waiter.id);
    leave(waiter);
  });
}

void Subscribers::fail(Job& job, const wire::Failed& failed) {
  each(job, Kind::kAnswer, [&](Waiter& waiter) {
    wire::append(waiter.caller->out(), waiter.id, failed);
    leave(waiter);
  });
}

// ---- while it waits ----

void Subscribers::want_news(Waiter& waiter, std::unique_ptr<QueueNews> news) {
  news->speaks_ns = connections_.now_ns() + news->every_ns;
  timers_.set(waiter, std::min(news->speaks_ns, connections_.now_ns() + kSignOfLifeNs));
  waiter.news = std::move(news);
}

void Subscribers::open(Waiter& waiter) {
  waiter.news->opened = true;
  wire::append(waiter.caller->out(), waiter.id,
               wire::Head{.status = 200,
                          .content_type = "text/event-stream",
                          .headers = waiter.duplicate ? kDuplicateHeader : std::string_view(),
                          .duplicate = waiter.duplicate ? 1U : 0U,
                          .opens = 1});
  const JobView now = view(*waiter.job, waiter.news->jobs_path);
  say_news(waiter, now);
}

void Subscribers::speak_soon(Job& job) {
  each(job, Kind::kAnswer, [&](Waiter& waiter) {
    if (waiter.news != nullptr && !waiter.news->opened) {
      timers_.set(waiter, std::max(waiter.news->speaks_ns, connections_.now_ns()));
    }
  });
}

// Nothing of the answer has come, and the job is in a queue or runs.
bool Subscribers::wants_to_speak(const Waiter& waiter) const {
  return waiter.news != nullptr && waiter.job != nullptr && !waiter.job->answer_began &&
         !waiter.job->looking_up && !waiter.job->ending;
}

void Subscribers::say_news(Waiter& waiter, JobView now) {
  QueueNews& news = *waiter.news;
  const int64_t now_ns = waiter.told_ns = connections_.now_ns();
  now.moved = news.told.moved(now);
  news.told = ToldWait::of(now, now_ns);
  wire::append(waiter.caller->out(), waiter.id,
               wire::Note{.text = news_text(news, now),
                          .position = now.position,
                          .eta_ms = static_cast<uint64_t>(now.eta_seconds.value_or(0)) * 1000});
  timers_.set(waiter, now_ns + std::min(news.every_ns, kKeepAliveNs));
}

void Subscribers::look_after_news(Waiter& waiter, int64_t now_ns) {
  const QueueNews& news = *waiter.news;
  const int64_t keep_alive_ns = waiter.told_ns + std::min(kKeepAliveNs, 3 * news.every_ns);
  const JobView now = view(*waiter.job, news.jobs_path);
  const bool due = keep_alive_ns <= now_ns || news.told.differs(ToldWait::of(now, now_ns));
  if (due && !waiter.caller->clogged()) {
    return say_news(waiter, now);
  }
  const int64_t next_ns = now_ns + news.every_ns;
  timers_.set(waiter, keep_alive_ns > now_ns ? std::min(keep_alive_ns, next_ns) : next_ns);
}

}  // namespace penstock::queue
