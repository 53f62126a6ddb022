// Dispatcher: what hosts ask each other of a job that runs on one of them (JobQuestions).
//
//   "ID news"               how far it has come: a PROGRESS frame
//   "ID preview"            what it looks like: a PREVIEW frame
//   "ID rest RUN OFFSET"    its answer from there on, for a home that has missed some: the number
//   of
//                           the part that follows, and HEAD and CHUNK frames; 0: there is still
//                           more
#include <charconv>

#include "worker/queue/jobs/caller.h"
#include "worker/queue/jobs/dispatcher.h"
#include "worker/queue/jobs/heard_answer.h"

namespace penstock::queue {

namespace {

constexpr double kMillion = 1e6;
constexpr size_t kMostRest = 1U << 20;  // in one answer

std::string_view take_word(std::string_view& rest) {
  const std::string_view word = rest.substr(0, rest.find(' '));
  rest.remove_prefix(std::min(word.size() + 1, rest.size()));
  return word;
}

uint64_t take_number(std::string_view& rest) {
  const std::string_view word = take_word(rest);
  uint64_t number = 0;
  std::from_chars(word.data(), word.data() + word.size(), number);
  return number;
}

void append_chunks(std::string& frames, std::string_view bytes) {
  for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), wire::kMaxChunkBytes))) {
    wire::append_chunk(frames, 0, bytes.substr(0, wire::kMaxChunkBytes));
  }
}

}  // namespace

// ---- of jobs that run here

std::string Dispatcher::on_asked(SharedQueue& queue, std::string_view asked) {
  const auto id = parse_job_id(take_word(asked));
  const Job* const job = id ? find(*id) : nullptr;
  std::string answer;
  if (job == nullptr || !job->shared || job->ending) {
    return answer;
  }
  const Job::More& more = *job->more;
  const std::string_view what = take_word(asked);
  if (what == "news" && more.has_progress) {
    wire::append(answer, 0,
                 wire::Progress{.millionths = static_cast<uint64_t>(more.progress * kMillion),
                                .step = more.step,
                                .steps = more.steps});
  } else if (what == "preview" && more.preview != nullptr) {
    wire::append(answer, 0, wire::Preview{more.preview->content_type, more.preview->body});
  } else if (what == "rest" && take_number(asked) == shared_run(more.fence, more.restarts) &&
             job->answer_began) {
    const std::string_view rest = more.answer.from(take_number(asked));
    const uint64_t next = rest.size() > kMostRest ? 0 : queue.writer().next(id->view());
    answer = std::to_string(next) + " ";
    wire::append(answer, 0,
                 wire::Head{.status = more.answer.status,
                            .content_type = more.answer.content_type,
                            .headers = more.answer.headers});
    append_chunks(answer, rest.substr(0, kMostRest));
  }
  return answer;
}

// ---- of jobs that are away

void Dispatcher::heard_hole(const JobId& id) {
  Job& job = *find(id);
  job.more->heard->lost = !job.more->keep->promised;  // else others have the stream
  ask_for_rest(job);
}

// The order knows who runs it. Where that does not help now, it is asked again each second, until
// the job has ended.
void Dispatcher::ask_for_rest(Job& job) {
  HeardAnswer* const heard = job.more->heard.get();
  if (heard == nullptr || !heard->lost || heard->paused) {
    return;
  }
  SharedQueue& queue = *shared(*job.home()->queue);
  const auto found = [this, &queue,
                      id = job.id()](const SharedOrder::Answer<SharedOrder::Known>& known) {
    Job* const it = find(id);
    if (!known || known.value.state != SharedOrder::Known::State::kRunning || it == nullptr ||
        it->more->heard == nullptr) {
      return;
    }
    if (!it->answer_began) {
      it->more->fence = known.value.fence;
    }
    const uint64_t fence = it->more->fence, offset = it->more->heard->bytes;
    const uint64_t run = shared_run(fence, it->more->restarts);
    queue.questions().ask(
        queue.host(), known.value.host,
        std::string(id.view()) + " rest " + std::to_string(run) + " " + std::to_string(offset),
        [this, id, fence, offset](std::string_view answer) {
          heard_rest(id, {fence, 0}, offset, answer);
        });
  };
  queue.look(job.id().view(), 1, found);
}

void Dispatcher::heard_rest(const JobId& id, PartPlace taking, uint64_t offset,
                            std::string_view answer) {
  const auto here = [&] {
    Job* const job = find(id);
    return job != nullptr && job->more->heard != nullptr && job->more->heard->lost &&
                   job->more->fence == taking.fence
               ? job
               : nullptr;
  };
  Job* job = here();
  if (job == nullptr || answer.empty() || job->more->heard->bytes != offset) {
    return;
  }
  const uint64_t next = take_number(answer);
  for (;;) {
    const wire::Decoded decoded = wire::decode(answer, {});
    if (decoded.kind != wire::Decoded::kFrame) {
      break;
    }
    const std::string_view bytes = answer.substr(0, decoded.consumed);
    answer.remove_prefix(decoded.consumed);
    const bool is_head = decoded.frame.header.type == wire::FrameType::kHead;
    if (is_head && !job->answer_began) {
      heard_frame(*job, bytes);
    } else if (!is_head) {
      job->more->heard->bytes += decoded.frame.payload.size();
      on_chunk(*job, decoded.frame.payload, bytes);
    }
    job = here();
    if (job == nullptr) {
      return;
    }
  }
  HeardAnswer& heard = *job->more->heard;
  if (next == 0) {
    return ask_for_rest(*job);
  }
  heard.lost = false;
  heard.following = shared(*job->home()->queue)
                        ->reader()
                        .follow(id.view(), {taking.fence, next - 1}, false, heard);
  if (heard.paused) {
    heard.following->pause();
  }
}

}  // namespace penstock::queue
