#include "shared/redis/guide.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "shared/base/clock.h"
#include "shared/redis/answer.h"

namespace penstock::redis {
namespace {

// How often it is asked, and how often at most.
struct Pace {
  int64_t every_ms, least_ms;
};
constexpr Pace kOfSentinel = {1000, 100};
constexpr Pace kOfCluster = {10'000, 1000};

}  // namespace

Guide::Guide(const Settings& settings, std::string master, std::vector<Address> servers, Loop& loop,
             User& user)
    : settings_(settings),
      master_(std::move(master)),
      given_(std::move(servers)),
      user_(user),
      link_(loop, *this),
      random_(static_cast<uint64_t>(monotonic_ns()) ^ static_cast<uint64_t>(getpid()) << 40) {
  turn_ = static_cast<size_t>(jittered(static_cast<int64_t>(2 * given_.size()))) % given_.size();
}

void Guide::stop() noexcept {
  open_ = asking_ = false;
  link_.close();
  link_.clear_timer();
}

const Address& Guide::at() const noexcept {
  const size_t turn = turn_ % (given_.size() + told_.size());
  return turn < given_.size() ? given_[turn] : told_[turn - given_.size()];
}

void Guide::doubt() noexcept {
  doubted_ = true;
  if (open_ && !asking_) {
    const int64_t least_ms = asks_sentinels() ? kOfSentinel.least_ms : kOfCluster.least_ms;
    ask_in(least_ms - (monotonic_ns() - asked_ns_) / kNsPerMs);
  }
}

// Between half and three halves of it.
int64_t Guide::jittered(int64_t ms) noexcept {
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;
  return ms / 2 + static_cast<int64_t>(random_ >> 33) % (ms + 1);
}

// A Sentinel that wants no password, or another, says so to the question.
void Guide::on_open() noexcept {
  open_ = true;
  if (!settings_.password.empty()) {
    std::vector<std::string_view> words{"AUTH"};
    if (!settings_.user.empty()) {
      words.push_back(settings_.user);
    }
    words.push_back(settings_.password);
    link_.send(words, nullptr);
  }
  ask();
}

void Guide::ask() noexcept {
  asking_ = true;
  asked_ns_ = monotonic_ns();
  if (asks_sentinels()) {
    const std::string_view words[] = {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", master_};
    link_.send(words, this);
  } else {
    const std::string_view words[] = {"CLUSTER", "SLOTS"};
    link_.send(words, this);
  }
  link_.set_timer(kSilentMs);
}

void Guide::ask_in(int64_t ms) noexcept { link_.set_timer(std::max<int64_t>(ms, 1)); }

void Guide::on_time() noexcept {
  if (asking_) {
    return give_up(link_.is_connected() ? "no answer" : "no connection");
  }
  if (open_ && !doubted_) {
    return ask();
  }
  if (open_) {
    leave();
  }
  asking_ = true;
  doubted_ = false;
  link_.set_timer(kSilentMs);
  link_.open(at());
}

void Guide::on_reply(void* what, const redisReply* reply) noexcept {
  if (what == nullptr || reply == nullptr || !open_) {
    return;
  }
  asking_ = false;
  std::optional<Places> places = asks_sentinels() ? read_master(*reply) : read_slots(*reply, at());
  if (!places) {
    const std::string_view error = is_error(*reply) ? text_of(*reply) : "";
    return give_up(!error.empty()     ? error
                   : asks_sentinels() ? "it knows no master of that name"
                                      : "it knows no slots: is it in a cluster?");
  }
  pause_ms_ = kFirstPauseMs;
  misses_ = 0;
  const Pace pace = asks_sentinels() ? kOfSentinel : kOfCluster;
  ask_in(doubted_ ? pace.least_ms : std::max(pace.least_ms, jittered(pace.every_ms)));
  if (!asks_sentinels()) {
    turn_ = turn_ % (given_.size() + told_.size());
    if (turn_ < given_.size()) {
      told_ = places->servers;
    }
  }
  user_.on_places(std::move(*places));
}

// The next one has its turn.
void Guide::leave() noexcept {
  open_ = asking_ = false;
  link_.close();
  turn_ = (turn_ + 1) % (given_.size() + told_.size());
}

// The next one is asked: at once, or, after all of them, later.
void Guide::give_up(std::string_view why) noexcept {
  std::string text = (asks_sentinels() ? "Sentinel at " : "Redis at ") + text_of(at());
  text += ", asked for " + (asks_sentinels() ? "master " + master_ : std::string("its cluster"));
  text += ": " + std::string(why);
  leave();
  if (++misses_ % (given_.size() + told_.size()) != 0) {
    return ask_in(1);
  }
  ask_in(jittered(pause_ms_));
  pause_ms_ = std::min(2 * pause_ms_, kLongestPauseMs);
  user_.on_no_places(text);
}

}  // namespace penstock::redis
