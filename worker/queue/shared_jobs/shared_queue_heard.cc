// SharedQueue: what it hears of jobs that it did not ask for just then.
#include <algorithm>
#include <utility>

#include "worker/queue/shared_jobs/shared_queue.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {

// ---- what is heard at once

void SharedQueue::on_listening(std::string_view channel) {
  wake({});
  if (channel == home_channel()) {  // parts of answers come by no other
    talk_.reader.on_listening();
  }
}

// "wake LANE", "over ID ID…", "stop ID FENCE", "paused", "resumed", "tick N", parts of answers
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
    for (std::string_view left = rest; !left.empty();) {
      on_over(std::string(left.substr(0, left.find(' '))));
      left.remove_prefix(std::min(left.find(' '), left.size() - 1) + 1);
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

void SharedQueue::on_over(const std::string& id) {
  if (journal() != nullptr) {
    journal()->forget(id);
  }
  if (awaited_.erase(id) > 0 || watched_.contains(id)) {
    user_.on_position(*this, id, -1);
  }
}

// ---- membership

bool SharedQueue::runs(std::string_view id, uint64_t fence) const {
  const auto found = held_.find(std::string(id));
  return found != held_.end() && found->second == fence;
}

// What was taken under another name is told by that.
void SharedQueue::on_joined() {
  if (!std::exchange(listens_at_home_, true)) {
    subscription_.listen(home_channel(), *this);
  }
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
    const auto same = [&id = id, &fence = fence](const SharedOrder::Held& each) {
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
