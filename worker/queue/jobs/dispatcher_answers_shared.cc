// Dispatcher: answers of jobs that run on another host than where they are asked for.
//
// What a worker says of such a job is told to the other hosts (shared_answers/), and what is heard
// of a job that is away is told here as if a worker of this host had said it. Once the order has
// the end, whoever waits is told the rest by that, if it is of the same taking of the job: so
// nobody hears an answer that was joined of two, or one with a hole.
#include <charconv>
#include <utility>

#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/heard_answer.h"

namespace penstock::queue {

using PromiseState = Job::PromiseState;

namespace {

const wire::Failed kCut{.status = 502,
                        .code = "engine_failed",
                        .message = "The answer was cut short. The host that made it was lost."};

}  // namespace

// ---- jobs that run here

// What it answers goes to those who wait on another host, and to the stream of what was promised.
void Dispatcher::tell_from_start(Job& job, SharedQueue& queue, const SharedOrder::Taken& taken) {
  const bool promised = job.more->keep->promised;
  const bool waited = !promised && !taken.home.empty() && taken.home != queue.home();
  job.tells = job.tells && (waited || promised);
  if (!job.tells) {
    return;
  }
  queue.writer().begin(taken.id, taken.fence, waited ? taken.home : "", promised);
  if (job.answer_began) {
    const Answer& answer = job.more->answer;
    say_head(
        job,
        {.status = answer.status, .content_type = answer.content_type, .headers = answer.headers});
    queue.writer().say(taken.id, Part::Kind::kChunk, answer.tail);
  }
}

void Dispatcher::say(const Job& job, Part::Kind kind, std::string_view bytes) {
  if (job.tells && bytes.size() <= Part::kMostBytes) {
    shared(*job.home()->queue)->writer().say(job.id().view(), kind, bytes);
  }
}

void Dispatcher::say_restart(Job& job) {
  if (job.shared) {
    say(job, Part::Kind::kBegun, std::to_string(++job.more->restarts));
  }
}

void Dispatcher::say_head(const Job& job, const wire::Head& head) {
  if (job.tells) {
    std::string frame;
    wire::append(frame, 0, head);
    say(job, Part::Kind::kHead, frame);
  }
}

// `done`: the frame; empty: it has failed, or was cancelled.
void Dispatcher::say_end(Job& job, std::string_view done) {
  if (job.tells) {
    job.tells = false;
    shared(*job.home()->queue)->writer().end(job.id().view(), done);
  }
}

// ---- jobs that are away

// Whoever waits for its answer hears the runner say it; whoever asks for events of what was
// promised reads its stream. `after`: what came until there is known, or forgotten.
void Dispatcher::hear(Job& job, PartPlace after) {
  const bool promised = job.more->keep->promised;
  bool asked = false;
  for (const Waiter* waiter = job.waiters(); waiter != nullptr; waiter = waiter->next) {
    asked = asked || waiter->kind == Waiter::Kind::kAnswer ||
            (promised && waiter->kind == Waiter::Kind::kEvents);
  }
  if (!asked || job.more->heard != nullptr) {
    return;
  }
  AnswerReader& reader = shared(*job.home()->queue)->reader();
  job.keeps_answer = job.keeps_answer || promised;
  job.more->heard = std::make_shared<HeardAnswer>(*this, job.id());
  HeardAnswer& heard = *job.more->heard;
  heard.following = promised ? reader.read(job.id().view(), after, heard)
                             : reader.follow(job.id().view(), after, false, heard);
}

void Dispatcher::listen(Job& job, const SharedOrder::Known& known) {
  const bool runs = known.state == SharedOrder::Known::State::kRunning;
  hear(job, {known.fence + (runs ? 0 : 1), 0});
}

void Dispatcher::heard(const JobId& id, const Part& part) {
  Job& job = *find(id);
  Job::More& more = *job.more;
  more.heard->seen_back = more.heard->lost = false;
  if (std::exchange(more.fence, part.place.fence) != part.place.fence || more.position != 0) {
    more.position = 0;
    more.restarts = 0;
    if (std::exchange(more.is_foretold, false)) {  // it has just begun for the first time
      JobRecord record;
      record.id = job.id();
      record.created_ms = job.created_ms;
      record.end.started_ms = wall_ms();
      learn_away(*job.home(), more.foretold, record);
    }
    subscribers_.tell_state(job);
  }
  switch (part.kind) {
    case Part::Kind::kBegun:
      return heard_restart(job, part.bytes);
    case Part::Kind::kHead:
    case Part::Kind::kNews:
      return heard_frame(job, part.bytes);
    case Part::Kind::kChunk: {
      std::string frame;
      wire::append_chunk(frame, 0, part.bytes);
      more.heard->bytes += part.bytes.size();
      return job.answer_began ? on_chunk(job, part.bytes, frame) : void();
    }
    case Part::Kind::kEnd:
      return heard_end(job, part.bytes);
  }
}

// Where it runs it begins anew, under the same fence. `restarts`: so often; empty: not yet.
void Dispatcher::heard_restart(Job& job, std::string_view restarts) {
  uint8_t number = 0;
  std::from_chars(restarts.data(), restarts.data() + restarts.size(), number);
  if (std::exchange(job.more->restarts, number) == number) {
    return;
  }
  const JobId id = job.id();
  begin_again(job);
  if (Job* const it = find(id); it != nullptr) {
    subscribers_.tell_state(*it);
  }
}

void Dispatcher::heard_frame(Job& job, std::string_view bytes) {
  const wire::Decoded decoded = wire::decode(bytes, {});
  if (decoded.kind != wire::Decoded::kFrame) {
    return;
  }
  const std::string_view payload = decoded.frame.payload;
  wire::Head head;
  wire::Progress progress;
  wire::Preview preview;
  switch (decoded.frame.header.type) {
    case wire::FrameType::kHead:
      return wire::parse(payload, head) == nullptr ? on_head(job, head) : void();
    case wire::FrameType::kProgress:
      return wire::parse(payload, progress) == nullptr ? on_progress(job, progress, bytes) : void();
    case wire::FrameType::kPreview:
      return wire::parse(payload, preview) == nullptr ? on_preview(job, preview) : void();
    default:
      return;
  }
}

void Dispatcher::heard_end(Job& job, std::string_view done) {
  const wire::Decoded decoded = wire::decode(done, {});
  if (job.answer_began && decoded.kind == wire::Decoded::kFrame &&
      decoded.frame.header.type == wire::FrameType::kDone) {
    subscribers_.complete(job, done);
  }
  if (job.promise == PromiseState::kNone && job.waiters() == nullptr) {
    return forget(job);
  }
}

void Dispatcher::heard_over(const JobId& id) {
  if (const Job* const job = find(id); job != nullptr && job->away) {
    look_for_end(*shared(*job->home()->queue), id);
  }
}

// As fast as its fastest reader.
void Dispatcher::pace_heard(Job& job) {
  HeardAnswer* const heard = job.more->heard.get();
  if (heard == nullptr || heard->following == nullptr) {
    return;
  }
  const bool lags = subscribers_.lags(job);
  if (std::exchange(heard->paused, lags) != lags) {
    lags ? heard->following->pause() : heard->following->resume();
    ask_for_rest(job);
  }
}

// It was taken once more, or will be. Who has seen the beginning of its answer hears that there is
// no more of that; it may be the job's end.
void Dispatcher::begin_again(Job& job) {
  const bool began = job.answer_began;
  job.answer_began = job.answer_fails = false;
  job.more->answer = {};
  job.more->has_progress = false;
  job.more->preview.reset();
  if (job.more->heard != nullptr) {
    job.more->heard->bytes = 0;
    job.more->heard->lost = false;
  }
  if (began) {
    subscribers_.fail(job, kCut);
    abandon_if_unwanted(job);
  }
}

// Whether it waits again, and did run. What the order said may be from before it was taken: it is
// so only if it is said again, and no part has come meanwhile.
bool Dispatcher::is_back(const Job& job, int64_t position) {
  return position > 0 && job.more->fence != 0 && job.more->heard != nullptr &&
         std::exchange(job.more->heard->seen_back, true);
}

void Dispatcher::tell_end(Job& job, const JobRecord& record, uint64_t fence) {
  const JobEnd& end = record.end;
  const Answer& answer = job.more->answer;
  const HeardAnswer* const heard = job.more->heard.get();
  const bool same = heard != nullptr && job.more->fence == fence &&
                    job.more->restarts == record.restarts && heard->bytes <= answer.bytes;
  if (!end.answered()) {
    return subscribers_.fail(
        job, {.status = end.http_status, .code = end.error_code, .message = end.error});
  }
  if (job.answer_began && !same) {
    subscribers_.fail(job, kCut);
    job.answer_began = false;
  }
  const uint64_t forwarded = job.answer_began && same ? heard->bytes : 0;
  job.more->fence = fence;
  job.more->restarts = record.restarts;
  job.keeps_answer = true;
  subscribers_.tell_rest(job, same);
  if (!job.answer_began) {
    subscribers_.forward_head(job, {.status = end.http_status,
                                    .content_type = end.content_type,
                                    .content_length_plus1 = answer.bytes + 1,
                                    .headers = end.headers});
  }
  std::string frame;
  for (std::string_view rest = answer.from(forwarded); !rest.empty();) {
    const std::string_view some = rest.substr(0, wire::kMaxChunkBytes);
    frame.clear();
    wire::append_chunk(frame, 0, some);
    subscribers_.forward(job, frame, some, true);
    rest.remove_prefix(some.size());
  }
  frame.clear();
  wire::append(frame, 0,
               wire::Done{.prompt_tokens = end.prompt_tokens,
                          .completion_tokens = end.completion_tokens,
                          .device_ns = end.device_ns,
                          .estimated = end.estimated ? 1U : 0U});
  subscribers_.complete(job, frame);
}

}  // namespace penstock::queue
