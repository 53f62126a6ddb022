#include "worker/queue/shared_jobs/durability.h"

#include <array>

#include "shared/redis/answer.h"
#include "worker/queue/shared_jobs/redis_question.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

// Both answers are for one: it is told by the second.
struct Durability::Asked {
  std::string server;
  std::array<std::string, 2> values;
  std::string why;
  size_t answers = 0;
  bool lost = false;  // it is asked once more when it is there again
};

std::string what_a_promise_means(std::string_view appendonly, std::string_view appendfsync,
                                 std::string_view why) {
  if (appendonly.empty() || appendfsync.empty()) {
    return "does not say whether it keeps what it is told (" + std::string(why) +
           "): a 202 means no more than its appendonly and appendfsync do";
  }
  if (appendonly != "yes") {
    return "keeps what it is told in its memory alone (appendonly no): a 202 holds until it ends; "
           "set appendonly yes, appendfsync always";
  }
  if (appendfsync == "always") {
    return {};
  }
  return "writes what it is told to disk later (appendfsync " + std::string(appendfsync) +
         "): a 202 holds unless its machine loses power within " +
         (appendfsync == "everysec" ? "2 s" : "some 30 s") + "; set appendfsync always";
}

void Durability::look(const std::string& key) {
  const redis::Address* const at = servers_.server_of(key);
  if (at == nullptr) {
    return;
  }
  const auto asked =
      std::make_shared<Asked>(Asked{.server = text_of(*at), .values = {}, .why = {}});
  const auto answered = [this, asked](const redisReply* reply) {
    std::string& value = asked->values[asked->answers++];
    if (reply == nullptr) {
      asked->lost = true;
    } else if (redis::is_error(*reply)) {
      asked->why = redis::text_of(*reply);
    } else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
               redis::is_text(*reply->element[1])) {
      value = redis::text_of(*reply->element[1]);
    }
    if (asked->answers == asked->values.size() && !asked->lost) {
      told(*asked);
    }
  };
  for (const std::string_view name : {"appendonly", "appendfsync"}) {
    const std::string_view words[] = {"CONFIG", "GET", name};
    ask(servers_, key, words, alive_, answered);
  }
}

bool Durability::is_kept() const {
  bool any = false;
  for (const auto& [at, kept] : kept_) {
    if (kept.is_current && !kept.warning.empty()) {
      return false;
    }
    any = any || kept.is_current;
  }
  return any;
}

void Durability::forget() {
  for (auto& [at, kept] : kept_) {
    kept.is_current = false;
  }
}

void Durability::told(const Asked& asked) {
  const std::string text = what_a_promise_means(asked.values[0], asked.values[1],
                                                asked.why.empty() ? "no such settings" : asked.why);
  const auto [kept, fresh] = kept_.try_emplace(asked.server);
  const bool news = fresh || kept->second.warning != text;
  kept->second = {asked.values[0], asked.values[1], text};
  if (news && !text.empty()) {
    log(Level::kWarn, "Redis at " + asked.server + " " + text);
  }
}

}  // namespace penstock::queue
