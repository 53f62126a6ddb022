// QueueNews: how a stream speaks while its job waits (PROTOCOL.md, NOTE). A waiter that wants news
// has one of these.
//
//   : queued position=5 eta=42
//
// Readers of event streams pass comments over, so nobody need know of them. Who asks for events has
// `event: queue` with the job as its data, too.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "worker/queue/jobs/job_view.h"
#include "worker/queue/jobs/told_wait.h"

namespace penstock::queue {

// What an engine answered in place of the stream that has begun: an error, or no events.
struct Misfit {
  static constexpr size_t kMostBytes = 8U << 10;
  uint64_t status = 0;
  bool is_json = false;
  std::string body;  // as much as may be an error of OpenAI's shape; of more it is none
};

struct QueueNews {
  int64_t every_ns = 0;     // at most so often; and at least each third time, or in 15 s
  bool events = false;      // and not only comments
  bool completion = false;  // as its path says: which workers may refuse it
  std::string jobs_path;    // where its caller sees jobs
  int64_t speaks_ns = 0;    // not before then
  bool opened = false;      // the stream has begun
  ToldWait told;
  std::unique_ptr<Misfit> misfit;
};

// The comment, and the event where it is wanted.
std::string news_text(const QueueNews& news, const JobView& view);

}  // namespace penstock::queue
