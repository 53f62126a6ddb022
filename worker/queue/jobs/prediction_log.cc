#include "worker/queue/jobs/prediction_log.h"

#include <utility>

#include "shared/base/clock.h"
#include "worker/queue/text/json.h"

namespace penstock::queue {

void PredictionLog::add(ForetoldWait wait) {
  if (waits_.size() < kKept) {
    waits_.push_back(std::move(wait));
    return;
  }
  waits_[next_] = std::move(wait);
  next_ = (next_ + 1) % kKept;
}

std::string PredictionLog::json() const {
  JsonList list;
  for (size_t i = waits_.size(); i > 0; --i) {
    const ForetoldWait& each = waits_[(next_ + i - 1) % waits_.size()];
    list.add(JsonObject()
                 .text("id", each.id.view())
                 .text("queue", each.queue)
                 .text_or_null("model", each.model)
                 .number("at", each.told_ms / 1000)
                 .number("said_ms", each.said_ns / kNsPerMs)
                 .number("soon_ms", each.soon_ns / kNsPerMs)
                 .number("late_ms", each.late_ns / kNsPerMs)
                 .number("waited_ms", each.waited_ns / kNsPerMs)
                 .boolean("inside", each.inside())
                 .done());
  }
  return JsonObject().raw("predictions", list.done()).done();
}

}  // namespace penstock::queue
