#include "worker/queue/shared_jobs/layouts.h"

#include "shared/redis/answer.h"
#include "worker/queue/shared_jobs/redis_question.h"
#include "worker/queue/shared_order/scripts.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

void Layouts::look(const std::string& queue) {
  const std::string key = prefix_ + ":layouts:{" + queue + "}";
  const std::string_view note[] = {"SADD", key, order_script::kLayout};
  servers_.ask(key, note, nullptr, nullptr);
  const std::string_view words[] = {"SMEMBERS", key};
  ask(servers_, key, words, alive_, [this, queue](const redisReply* reply) {
    if (reply != nullptr) {
      told(queue, *reply);
    }
  });
}

void Layouts::told(const std::string& queue, const redisReply& layouts) {
  std::set<std::string>& others = others_[queue];
  for (size_t i = 0; layouts.type == REDIS_REPLY_ARRAY && i < layouts.elements; ++i) {
    const std::string_view layout =
        redis::is_text(*layouts.element[i]) ? redis::text_of(*layouts.element[i]) : "";
    if (!layout.empty() && layout != order_script::kLayout && others.size() < kMost &&
        others.emplace(layout).second) {
      log(Level::kWarn,
          "queue " + queue +
              ": another version of penstockd has kept it in this Redis, by layout " +
              std::string(layout) + "; this one keeps it by " + order_script::kLayout +
              ", and does not see what waits there: hosts of that version have to run it");
    }
  }
}

}  // namespace penstock::queue
