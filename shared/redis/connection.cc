#include "shared/redis/connection.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "shared/base/clock.h"
#include "shared/redis/answer.h"
#include "shared/redis/places.h"

namespace penstock::redis {
namespace {

constexpr size_t kMostWords = 4 + Connection::kMostArguments;  // of a command

// Errors that say that the server as a whole cannot be used, whatever is asked.
bool is_unwell(const redisReply& answer) noexcept {
  constexpr std::string_view kKinds[] = {"READONLY",   "OOM",        "LOADING", "MASTERDOWN",
                                         "MISCONF",    "BUSY ",      "NOAUTH",  "NOPERM",
                                         "NOREPLICAS", "CLUSTERDOWN"};
  return std::any_of(std::begin(kKinds), std::end(kKinds),
                     [&](std::string_view kind) { return is_error(answer, kind); });
}

// Errors of a cluster that say that the key is, or may be, on another server.
bool is_elsewhere(const redisReply& answer) noexcept {
  return is_error(answer, "MOVED ") || is_error(answer, "ASK ") || is_error(answer, "TRYAGAIN");
}

}  // namespace

// What was sent and is not answered yet.
struct Connection::Call {
  enum class Step : uint8_t { kNone, kPlain, kAsked, kRole, kPolicy, kInfo, kLoad, kHosts, kWrite };
  Call* next = nullptr;
  Answered answered;
  void* context;
  Script script;
  Step step = Step::kNone;
  bool again = false;  // its script was lost once
  unsigned moves = 0;  // so often it was sent elsewhere
  int64_t sent_ns = 0;
  uint64_t until = 0;     // its last byte, of all that the link has sent
  char* bytes = nullptr;  // as it was sent
  int size = 0;

  ~Call() { redisFreeCommand(bytes); }
};

Connection::Connection(const Settings& settings, Address at, Loop& loop, User& user)
    : settings_(settings),
      at_(std::move(at)),
      user_(user),
      link_(loop, *this),
      scripts_(settings.scripts.size()),
      random_(static_cast<uint64_t>(monotonic_ns()) ^ static_cast<uint64_t>(getpid()) << 40) {}

// What is pending is answered now; nobody is told that it is lost.
Connection::~Connection() {
  state_ = State::kClosed;
  link_.close();
}

void Connection::start() noexcept { open(); }

void Connection::leave() noexcept {
  if (ready() && tells_hosts()) {
    const std::string_view words[] = {"EVALSHA", sha_of(Script::kHosts), "1", own_key_,
                                      "0",       counted_as(),           "0"};
    if (Call* call = make(nullptr, nullptr, Script::kHosts); call != nullptr) {
      send(call, words);
    }
  }
  link_.flush();
  state_ = State::kClosed;
  link_.close();
  link_.clear_timer();
}

bool Connection::stalled(int64_t now_ns) const noexcept {
  return first_ != nullptr && now_ns - first_->sent_ns > settings_.patience_ms * kNsPerMs;
}

// ---- calls

Connection::Call* Connection::make(Answered answered, void* context, Script script) noexcept {
  return new (std::nothrow) Call{.answered = answered, .context = context, .script = script};
}

// The call is the connection's from here on, whatever becomes of it.
bool Connection::send(Call* call, std::span<const std::string_view> words) noexcept {
  const char* texts[kMostWords];
  size_t sizes[kMostWords];
  for (size_t i = 0; i < words.size(); ++i) {
    texts[i] = words[i].data();
    sizes[i] = words[i].size();
  }
  call->size = static_cast<int>(
      redisFormatCommandArgv(&call->bytes, static_cast<int>(words.size()), texts, sizes));
  if (call->size < 0 || !send_again(call)) {
    delete call;
    return false;
  }
  return true;
}

bool Connection::send_again(Call* call) noexcept {
  if (!link_.send({call->bytes, static_cast<size_t>(call->size)}, call)) {
    return false;
  }
  call->sent_ns = monotonic_ns();
  call->until = link_.sent();
  call->next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = call;
  last_ = call;
  return true;
}

bool Connection::call(Script script, std::string_view key,
                      std::span<const std::string_view> arguments, Answered answered,
                      void* context) noexcept {
  if (arguments.size() > kMostArguments) {
    return false;
  }
  std::array<std::string_view, kMostWords> words{"EVALSHA", sha_of(script), "1", key};
  std::copy(arguments.begin(), arguments.end(), words.begin() + 4);
  Call* call = make(answered, context, script);
  return call != nullptr && send(call, {words.data(), 4 + arguments.size()});
}

bool Connection::wait(uint32_t replicas, int64_t ms, Answered answered, void* context) noexcept {
  const std::string most = std::to_string(replicas);
  const std::string limit = std::to_string(ms);
  const std::string_view words[] = {"WAIT", most, limit};
  Call* call = make(answered, context, Script::kHosts);
  return call != nullptr && send(call, words);
}

bool Connection::ask(std::span<const std::string_view> words, Answered answered,
                     void* context) noexcept {
  Call* call = make(answered, context, Script::kHosts);
  if (call == nullptr) {
    return false;
  }
  call->step = Call::Step::kAsked;
  return send(call, words);
}

void Connection::on_reply(void* what, const redisReply* answer) noexcept {
  auto* call = static_cast<Call*>(what);
  // In order: it is the first.
  first_ = call->next;
  if (answer != nullptr && repeat(call, *answer)) {
    return;
  }
  if (answer != nullptr && settings_.follows != Settings::Follows::kAll &&
      call->step == Call::Step::kNone && is_elsewhere(*answer)) {
    answer = nullptr;
  }
  const bool may_be_full = answer != nullptr && !settings_.counts_hosts && is_error(*answer, "OOM");
  if (answer != nullptr && is_unwell(*answer) && !may_be_full &&
      call->step != Call::Step::kPolicy && call->step != Call::Step::kRole &&
      call->step != Call::Step::kAsked) {
    lose(text_of(*answer));
    answer = nullptr;
  }
  if (answer != nullptr && call->step != Call::Step::kNone && call->step != Call::Step::kAsked) {
    on_greeted(*call, *answer);
  } else if (call->answered != nullptr) {
    call->answered(call->context, answer);
  }
  delete call;
}

// Errors that say that a call has not run, and what to do: it goes out once more.
bool Connection::repeat(Call* call, const redisReply& answer) noexcept {
  constexpr unsigned kMostMoves = 2;
  if (answer.type != REDIS_REPLY_ERROR) {
    return false;
  }
  // NOSCRIPT: the server was restarted, or its scripts were flushed. It goes behind the script.
  if (is_error(answer, "NOSCRIPT") && !call->again) {
    if (bool& loading = scripts_[static_cast<size_t>(call->script)].loading; !loading) {
      loading = true;
      load(call->script);
    }
    call->again = true;
    return send_again(call);
  }
  const bool asking = is_error(answer, "ASK ");
  const bool moved = asking || is_error(answer, "MOVED ");
  const bool later = is_error(answer, "TRYAGAIN");
  if (call->step != Call::Step::kNone || call->moves == kMostMoves || !(moved || later)) {
    return false;
  }
  Connection* to = later ? this : user_.on_moved(*this, text_of(answer));
  ++call->moves;
  return to != nullptr && to->take(call, asking);
}

// A call that another connection was told to send here; it may be greeted yet.
bool Connection::take(Call* call, bool asking) noexcept {
  if (asking) {
    const std::string_view words[] = {"ASKING"};
    Call* ask = make(nullptr, nullptr, Script::kHosts);
    if (ask == nullptr || !send(ask, words)) {
      return false;
    }
  }
  return send_again(call);
}

void Connection::load(Script script) noexcept {
  const std::string_view words[] = {"SCRIPT", "LOAD",
                                    settings_.scripts[static_cast<size_t>(script)]};
  if (Call* call = make(nullptr, nullptr, script); call != nullptr) {
    call->step = Call::Step::kLoad;
    send(call, words);
  }
}

// ---- its life

void Connection::open() noexcept {
  opened_ns_ = monotonic_ns();
  was_silent_ = false;
  state_ = State::kGreeting;
  link_.set_timer(kTickMs);
  link_.open(at_);
}

// Everything at once: the server answers in order.
void Connection::greet() noexcept {
  const auto ask = [&](Call::Step step, std::initializer_list<std::string_view> words) {
    if (Call* call = make(nullptr, nullptr, Script::kHosts); call != nullptr) {
      call->step = step;
      send(call, {words.begin(), words.size()});
    }
  };
  using Step = Call::Step;
  if (!settings_.password.empty()) {
    if (settings_.user.empty()) {
      ask(Step::kPlain, {"AUTH", settings_.password});
    } else {
      ask(Step::kPlain, {"AUTH", settings_.user, settings_.password});
    }
  }
  if (settings_.database != 0) {
    ask(Step::kPlain, {"SELECT", std::to_string(settings_.database)});
  }
  ask(Step::kRole, {"ROLE"});
  for (size_t script = 0; script < scripts_.size(); ++script) {
    load(static_cast<Script>(script));
  }
  ask(Step::kPolicy, {"CONFIG", "GET", "maxmemory-policy"});
}

void Connection::check_policy(std::string_view policy) noexcept {
  if (policy != "noeviction") {
    return lose(policy.empty()
                    ? "it does not say its maxmemory-policy, which must be noeviction"
                    : "its maxmemory-policy is " + std::string(policy) +
                          ", and what it evicts would be admitted again: set it to noeviction");
  }
  own_key_.empty() ? be_ready() : settings_.counts_hosts ? call_hosts() : call_first();
}

void Connection::on_greeted(const Call& call, const redisReply& answer) noexcept {
  using Step = Call::Step;
  if (state_ == State::kClosed) {
    return;
  }
  const bool error = answer.type == REDIS_REPLY_ERROR;
  switch (call.step) {
    case Step::kPlain:
    case Step::kAsked:
    case Step::kNone:
      return error ? lose(text_of(answer)) : void();
    case Step::kRole:  // who may not ask finds out as it writes
      if (answer.type == REDIS_REPLY_ARRAY && answer.elements > 0 &&
          answer.element[0]->type == REDIS_REPLY_STRING) {
        const std::string_view role = text_of(*answer.element[0]);
        if (role == "sentinel") {
          return lose("it is a Sentinel: add sentinel=NAME");
        }
        return role == "slave" ? lose("READONLY: it is a replica") : void();
      }
      return;
    case Step::kLoad: {
      Loaded& script = scripts_[static_cast<size_t>(call.script)];
      script.loading = false;
      if (error) {
        return lose(text_of(answer));
      }
      if (answer.type != REDIS_REPLY_STRING || answer.len != sizeof script.sha) {
        return lose("it loads no scripts: is it a Redis?");
      }
      std::memcpy(script.sha, answer.str, sizeof script.sha);
      return;
    }
    case Step::kPolicy:
      if (answer.type == REDIS_REPLY_ARRAY && answer.elements == 2 &&
          answer.element[1]->type == REDIS_REPLY_STRING) {
        return check_policy(text_of(*answer.element[1]));
      }
      // Where CONFIG is not to be had, INFO tells it.
      if (Call* info = make(nullptr, nullptr, Script::kHosts); info != nullptr) {
        info->step = Step::kInfo;
        const std::string_view words[] = {"INFO", "memory"};
        send(info, words);
      }
      return;
    case Step::kInfo:
      return check_policy(answer.type == REDIS_REPLY_STRING
                              ? info_of(text_of(answer), "maxmemory_policy")
                              : std::string_view());
    case Step::kHosts:
      if (is_error(answer, "MOVED ") || is_error(answer, "ASK ")) {
        if (user_.on_moved(*this, text_of(answer)) == nullptr) {
          return lose("it is one of a cluster: give redis= for several of its nodes");
        }
      } else if (error) {
        return lose(text_of(answer));
      } else if (answer.type != REDIS_REPLY_INTEGER || answer.integer < 1) {
        return lose("its answer is not understood: is it a Redis?");
      } else {
        user_.on_hosts(*this, static_cast<uint64_t>(answer.integer));
      }
      return state_ == State::kGreeting ? be_ready() : void();
    case Step::kWrite:  // of a slot that moves another server can tell
      return error && !is_elsewhere(answer) ? lose(text_of(answer)) : be_ready();
  }
}

void Connection::be_ready() noexcept {
  state_ = State::kReady;
  pause_ms_ = kFirstPauseMs;
  user_.on_ready(*this);
}

void Connection::call_hosts() noexcept {
  hosts_called_ns_ = monotonic_ns();
  const std::string stays = std::to_string(kHostStaysMs);
  const std::string_view words[] = {"EVALSHA", sha_of(Script::kHosts), "1",  own_key_,
                                    "0",       counted_as(),           stays};
  if (Call* call = make(nullptr, nullptr, Script::kHosts); call != nullptr) {
    call->step = Call::Step::kHosts;
    send(call, words);
  }
}

// A server that takes no writes would be found out by each call anew.
void Connection::call_first() noexcept {
  const std::string_view words[] = {"DEL", own_key_};
  if (Call* call = make(nullptr, nullptr, Script::kHosts); call != nullptr) {
    call->step = Call::Step::kWrite;
    send(call, words);
  }
}

// A large call, or answer, may take long. What is behind the oldest call goes out into buffers,
// whether the server lives or not.
bool Connection::is_silent(int64_t now_ns) noexcept {
  const uint64_t received = link_.received();
  const uint64_t taken = first_ == nullptr ? 0 : std::min(link_.taken(), first_->until);
  if (std::exchange(received_, received) != received || std::exchange(taken_, taken) < taken) {
    moved_ns_ = now_ns;
  }
  return first_ != nullptr && now_ns - std::max(first_->sent_ns, moved_ns_) > kDeadMs * kNsPerMs;
}

// Every kTickMs while it is open; once, when it is to be opened again.
void Connection::on_time() noexcept {
  const int64_t now_ns = monotonic_ns();
  if (state_ == State::kClosed) {
    return open();
  }
  const bool silent = is_silent(now_ns);
  // Who was stopped itself finds in its next turn what was said meanwhile.
  const bool lost = std::exchange(was_silent_, silent) && silent;
  const bool late = state_ != State::kReady && now_ns - opened_ns_ > kDeadMs * kNsPerMs;
  if (lost || late) {
    lose(link_.is_connected() ? "no answer within a second" : "no connection within a second");
    return;
  }
  if (ready() && tells_hosts() && now_ns - hosts_called_ns_ >= kHostsEveryMs * kNsPerMs) {
    call_hosts();
  }
  link_.set_timer(kTickMs);
}

void Connection::lose(std::string_view why) noexcept {
  if (state_ == State::kClosed) {
    return;
  }
  state_ = State::kClosed;
  const std::string text = "Redis at " + text_of(at_) + ": " + std::string(why);
  link_.close();
  pause();
  user_.on_lost(*this, text);
}

void Connection::pause() noexcept {
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;
  const int64_t jitter = static_cast<int64_t>(random_ >> 33) % (pause_ms_ + 1);
  link_.set_timer(pause_ms_ / 2 + jitter);
  pause_ms_ = std::min(2 * pause_ms_, kLongestPauseMs);
}

}  // namespace penstock::redis
