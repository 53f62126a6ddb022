#include "worker/queue/shared_answers/answer_reader.h"

#include <algorithm>
#include <array>

#include "shared/redis/answer.h"
#include "worker/queue/shared_answers/answer_state.h"
#include "worker/queue/shared_order/scripts.h"

namespace penstock::queue {
namespace {

constexpr int64_t kAwayNs = 50 * kNsPerMs;  // until Redis is asked again
constexpr std::string_view kMostEntries = "64", kMostBytes = "262144";  // of an answer

}  // namespace

// ---- who follows

AnswerReader::AnswerReader(redis::Servers& servers, redis::Subscription& subscription,
                           std::string key, Settings settings)
    : servers_(servers), subscription_(subscription), key_(std::move(key)), settings_(settings) {}

AnswerReader::~AnswerReader() {
  *alive_ = false;
  while (!states_.empty()) {
    remove(*states_.begin()->second);
  }
}

std::string AnswerReader::channel_of(std::string_view id) const {
  return key_ + "e|" + std::string(id);
}

std::unique_ptr<AnswerReader::Following> AnswerReader::follow(std::string_view id, PartPlace after,
                                                              bool resumable, Follower& follower) {
  return add(id, after, true, resumable, follower);
}

std::unique_ptr<AnswerReader::Following> AnswerReader::read(std::string_view id, PartPlace after,
                                                            Follower& follower) {
  auto following = add(id, after, false, true, follower);
  subscription_.listen(channel_of(id), *this);
  return following;
}

std::unique_ptr<AnswerReader::Following> AnswerReader::add(std::string_view id, PartPlace after,
                                                           bool live, bool kept,
                                                           Follower& follower) {
  auto state = std::make_shared<State>();
  state->reader = this;
  state->follower = &follower;
  state->id = id;
  state->live = live;
  state->kept = kept;
  state->next = {after.fence, after.number + 1};
  state->begun = after.number > 0;
  states_.emplace(state->id, state);
  if (kept && (!live || after.fence > 0)) {
    fill(*state);
  }
  return std::make_unique<Following>(std::move(state));
}

void AnswerReader::remove(State& state) {
  const Shared kept = state.shared_from_this();
  set_due(state, INT64_MAX);
  state.follower = nullptr;
  state.reader = nullptr;
  bool others = false;  // that listen to its stream
  const auto [first, last] = states_.equal_range(state.id);
  auto self = last;
  for (auto each = first; each != last; ++each) {
    self = each->second == kept ? each : self;
    others = others || (each->second != kept && !each->second->live);
  }
  states_.erase(self);
  if (!state.live && !others) {
    subscription_.leave(channel_of(state.id));
  }
}

AnswerReader::Following::~Following() {
  if (state_->reader != nullptr) {
    state_->reader->remove(*state_);
  }
}

void AnswerReader::Following::pause() {
  state_->paused = true;
  state_->looking = false;
  if (state_->reader != nullptr) {
    state_->reader->set_due(*state_, INT64_MAX);
  }
}

void AnswerReader::Following::resume() {
  state_->paused = false;
  if (AnswerReader* const reader = state_->reader; reader != nullptr) {
    const Shared state = state_;
    reader->tell_held(*state);
    reader->look_after(*state);
  }
}

void AnswerReader::Following::over() {
  state_->over = true;
  if (state_->reader != nullptr) {
    state_->reader->look_after(*state_);
  }
}

PartPlace AnswerReader::Following::told() const {
  return {state_->next.fence, state_->next.number - 1};
}

// ---- what is heard

void AnswerReader::on_message(std::string_view text) {
  if (!text.starts_with(kPartsMessage)) {
    return;
  }
  MessageReader message(text);
  std::string_view id;
  Part part;
  std::vector<Shared> to;
  while (message.next(id, part)) {
    to.clear();
    for (auto [each, last] = states_.equal_range(id); each != last; ++each) {
      if (each->second->live) {
        to.push_back(each->second);
      }
    }
    counts_.unwanted += to.empty() ? 1 : 0;
    for (const Shared& state : to) {
      on_part(*state, part);
    }
  }
  counts_.malformed += message.broken() ? 1 : 0;
}

// What was said before may have been missed, and nothing need follow that would show it. What has
// not begun shows it by its first part, or the order says that it runs.
void AnswerReader::on_listening() {
  missed_.clear();
  for (const auto& [id, state] : states_) {
    if (state->live && state->begun && !state->ended && !state->lost) {
      state->kept ? fill(*state) : missed_.push_back(state);
    }
  }
  lose_missed();
}

void AnswerReader::lose_missed() {
  for (size_t i = 0; i < kMostLost && !missed_.empty(); ++i) {
    const Shared state = missed_.front().lock();
    missed_.pop_front();
    if (state != nullptr && state->reader != nullptr && !state->ended && !state->lost) {
      lose(*state);
    }
  }
  lose_ns_ = monotonic_ns() + kLoseEveryNs;
}

void AnswerReader::on_listening(std::string_view channel) { on_message(channel, {}); }

void AnswerReader::on_message(std::string_view channel, std::string_view text) {
  const std::optional<PartPlace> place = parse_place(text);
  const std::string_view id = channel.substr(std::min(channel.size(), key_.size() + 2));
  for (auto [each, last] = states_.equal_range(id); each != last; ++each) {
    State& state = *each->second;
    if (!state.live && text == kOverMessage && state.follower != nullptr) {
      state.follower->on_over();
    } else if (!state.live && !state.ended && (!place || *place >= state.next)) {
      fill(state);
    }
  }
}

// Whether it is one that has not been told, of an answer that goes on. Of a later taking: from here
// on that is the answer.
bool AnswerReader::is_new(State& state, const Part& part) {
  if (part.place.fence > state.next.fence) {
    const bool begun = state.next.fence > 0;
    state.next = {part.place.fence, 1};
    state.ended = state.lost = state.looking = false;
    state.forget_held();
    if (begun && state.follower != nullptr) {
      state.follower->on_restarted(part.place.fence);
    }
  } else if (part.place < state.next) {
    ++counts_.repeated;
    return false;
  }
  return state.follower != nullptr && !state.ended && !state.lost;
}

void AnswerReader::on_part(State& state, const Part& part) {
  if (!is_new(state, part)) {
    return;
  }
  if (state.held.empty() && !state.paused && part.place == state.next) {
    tell(state, part);
  } else {
    hold(state, part);
  }
  look_after(state);
}

// Of the stream: what is not there now, before a part that is there, never will be.
void AnswerReader::on_kept_part(State& state, const Part& part) {
  if (!is_new(state, part)) {
    return;
  }
  if (part.place != state.next) {
    tell_held(state);
    if (!is_new(state, part)) {
      return;
    }
  }
  if (part.place == state.next) {
    tell(state, part);
  } else if (!state.paused) {
    lose(state);
  }
}

void AnswerReader::tell(State& state, const Part& part) {
  state.begun = true;
  ++state.next.number;
  ++counts_.parts;
  state.ended = part.kind == Part::Kind::kEnd;
  state.follower->on_part(part);
}

void AnswerReader::hold(State& state, const Part& part) {
  if (!state.held.empty() && part.place <= state.held.back().place) {
    ++counts_.repeated;
    return;
  }
  const size_t bytes = sizeof(State::Held) + part.bytes.size();
  if (state.held_bytes + bytes > settings_.most_held_bytes) {
    state.behind = state.kept;
    return state.kept ? void() : lose(state);
  }
  state.held_bytes += bytes;
  state.held.push_back({part.place, part.kind, std::string(part.bytes)});
}

void AnswerReader::tell_held(State& state) {
  while (!state.held.empty() && state.held.front().place <= state.next && !state.paused &&
         state.follower != nullptr) {
    const State::Held held = std::move(state.held.front());
    state.held.pop_front();
    state.held_bytes -= sizeof(State::Held) + held.bytes.size();
    if (held.place == state.next) {
      tell(state, {held.place, held.kind, held.bytes});
    }
  }
}

void AnswerReader::lose(State& state) {
  state.lost = true;
  state.looking = false;
  state.forget_held();
  ++counts_.lost;
  if (state.follower != nullptr) {
    state.follower->on_lost();
  }
}

// ---- what is missing

// What follows from what has come, or been missed: it waits, asks, or gives up.
void AnswerReader::look_after(State& state) {
  if (state.reader == nullptr || state.ended || state.lost) {
    state.forget_held();
    return set_due(state, INT64_MAX);
  }
  if (state.paused || !state.misses_some()) {
    state.looking = false;
    return set_due(state, state.live ? INT64_MAX : monotonic_ns() + settings_.look_every_ns);
  }
  if (state.looking) {
    return;
  }
  state.looking = true;
  state.looks_until_ns = 0;
  if (state.kept) {
    fill(state);
  } else if (state.has_hole()) {
    lose(state);
  } else {
    set_due(state, monotonic_ns() + settings_.grace_ns);
  }
}

void AnswerReader::advance_to(int64_t now_ns) {
  while (!due_.empty() && due_.begin()->first <= now_ns) {
    State& state = *due_.begin()->second;
    const Shared kept = state.shared_from_this();
    set_due(state, INT64_MAX);
    state.kept ? fill(state) : lose(state);
  }
  if (!missed_.empty() && now_ns >= lose_ns_) {
    lose_missed();
  }
  ask();
}

int64_t AnswerReader::next_event() const noexcept {
  const int64_t due_ns = std::min(due_.empty() ? INT64_MAX : due_.begin()->first,
                                  missed_.empty() ? INT64_MAX : lose_ns_);
  return to_fill_.empty() || asked_ == kMostAsked ? due_ns
                                                  : std::min(due_ns, monotonic_ns() + kAwayNs);
}

void AnswerReader::set_due(State& state, int64_t due_ns) {
  due_.erase({state.due_ns, &state});
  state.due_ns = due_ns;
  if (due_ns != INT64_MAX) {
    due_.emplace(due_ns, &state);
  }
}

// ---- what streams have

void AnswerReader::fill(State& state) {
  if (state.paused) {
    state.behind = true;
  } else if (state.asking) {
    state.ask_again = true;
  } else {
    // Nothing is lost for want of an answer.
    state.looks_until_ns = servers_.ready(key_) ? state.looks_until_ns : 0;
    state.asking = true;
    to_fill_.push_back(state.weak_from_this());
    ask();
  }
}

void AnswerReader::ask() {
  while (asked_ < kMostAsked && !to_fill_.empty()) {
    const Shared state = to_fill_.front().lock();
    if (state != nullptr && state->reader != nullptr && !ask(state)) {
      return;  // Redis is away
    }
    to_fill_.pop_front();
  }
}

bool AnswerReader::ask(const Shared& state) {
  struct Asked {
    AnswerReader& reader;
    std::shared_ptr<bool> alive;
    Shared state;
  };
  auto asked = std::make_unique<Asked>(Asked{*this, alive_, state});
  const auto answered = [](void* context, const redisReply* reply) noexcept {
    const std::unique_ptr<Asked> self(static_cast<Asked*>(context));
    if (*self->alive) {
      --self->reader.asked_;
      self->reader.filled(*self->state, reply);
      self->reader.ask();
    }
  };
  const PartPlace from = state->lost ? PartPlace{state->next.fence + 1, 0} : state->next;
  const std::string text = from.text();
  const std::array<std::string_view, 4> words = {state->id, text, kMostEntries, kMostBytes};
  if (!servers_.call(order_script::kKept, key_, words, answered, asked.get())) {
    return false;
  }
  static_cast<void>(asked.release());
  ++asked_;
  ++counts_.fills;
  return true;
}

void AnswerReader::filled(State& state, const redisReply* reply) {
  state.asking = false;
  if (state.reader == nullptr) {
    return;
  }
  if (reply == nullptr) {
    state.looks_until_ns = 0;
    return set_due(state, monotonic_ns() + settings_.fill_every_ns);
  }
  state.behind = false;
  const bool more = take_entries(state, *reply);
  tell_held(state);
  if (state.reader == nullptr) {
    return;
  }
  if (more || std::exchange(state.ask_again, false)) {
    return fill(state);
  }
  if (!state.looking || state.ended || state.lost || state.paused || !state.misses_some()) {
    return look_after(state);
  }
  const int64_t now_ns = monotonic_ns();
  if (state.looks_until_ns == 0) {
    state.looks_until_ns = now_ns + settings_.fill_for_ns;
  }
  now_ns < state.looks_until_ns ? set_due(state, now_ns + settings_.fill_every_ns) : lose(state);
}

// Whether there is more.
bool AnswerReader::take_entries(State& state, const redisReply& reply) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements % 2 == 0 ||
      reply.element[0]->type != REDIS_REPLY_INTEGER) {
    ++counts_.malformed;
    return false;
  }
  for (size_t i = 1; i < reply.elements; i += 2) {
    const redisReply &id = *reply.element[i], &parts = *reply.element[i + 1];
    const auto last = redis::is_text(id) ? parse_place(redis::text_of(id)) : std::nullopt;
    if (!last || !redis::is_text(parts)) {
      ++counts_.malformed;
      continue;
    }
    EntryReader entry(*last, redis::text_of(parts));
    for (Part part; state.follower != nullptr && entry.next(part);) {
      if (state.paused) {
        return true;
      }
      if (part.place >= state.next) {
        on_kept_part(state, part);
      }
    }
    counts_.malformed += state.follower != nullptr && entry.broken() ? 1 : 0;
  }
  return state.paused || reply.element[0]->integer == 1;
}

}  // namespace penstock::queue
