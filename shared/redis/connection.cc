#include "shared/redis/connection.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>

#include "shared/base/clock.h"

namespace penstock::redis {
namespace {

std::string_view view(const redisReply& answer) noexcept { return {answer.str, answer.len}; }

bool is_error(const redisReply& answer, std::string_view kind = {}) noexcept {
  return answer.type == REDIS_REPLY_ERROR && view(answer).substr(0, kind.size()) == kind;
}

// Errors that say that the server as a whole cannot be used, whatever is asked.
bool is_unwell(const redisReply& answer) noexcept {
  constexpr std::string_view kKinds[] = {"READONLY",   "OOM",         "LOADING", "MASTERDOWN",
                                         "MISCONF",    "BUSY ",       "NOAUTH",  "NOPERM",
                                         "NOREPLICAS", "CLUSTERDOWN", "MOVED",   "ASK "};
  return std::any_of(std::begin(kKinds), std::end(kKinds),
                     [&](std::string_view kind) { return is_error(answer, kind); });
}

// The value of a line "NAME:VALUE" of INFO.
std::string_view info_of(std::string_view text, std::string_view name) noexcept {
  const size_t at = text.find(name);
  if (at == std::string_view::npos) {
    return {};
  }
  text.remove_prefix(at + name.size());
  return text.substr(0, text.find_first_of("\r\n"));
}

}  // namespace

// What was sent and is not answered yet.
struct Connection::Call {
  enum class Step : uint8_t { kNone, kPlain, kPolicy, kInfo, kLoad, kHosts };
  Connection* connection;
  Call* next = nullptr;
  Answered answered;
  void* context;
  Script script;
  Step step = Step::kNone;
  bool again = false;  // it is sent the second time
  bool is_script = false;
  int64_t sent_ns = 0;
  char* bytes = nullptr;  // as it was sent, of a script's call
  int size = 0;

  ~Call() { redisFreeCommand(bytes); }
};

Connection::Connection(Settings settings, Loop& loop, User& user)
    : settings_(std::move(settings)),
      prefix_(settings_.prefix + ":" + kLayout + ":"),
      name_(settings_.address.path.empty()
                ? settings_.address.ip + ":" + std::to_string(settings_.address.port)
                : "unix:" + settings_.address.path),
      loop_(loop),
      user_(user),
      random_(static_cast<uint64_t>(monotonic_ns()) ^ static_cast<uint64_t>(getpid()) << 40) {}

Connection::~Connection() {
  close();
  loop_.clear_timer();
}

void Connection::start() noexcept { open(); }

void Connection::leave() noexcept {
  if (ready()) {
    const std::string key = prefix_ + "hosts";
    const std::string_view words[] = {"EVALSHA", {shas_[0], 40}, "1", key,
                                      "0",       settings_.host, "0"};
    if (Call* call = make(nullptr, nullptr, Script::kHosts); call != nullptr) {
      send(call, words);
    }
    inside_ = true;
    redisAsyncHandleWrite(redis_);
    inside_ = false;
  }
  close();
  loop_.clear_timer();
}

bool Connection::stalled(int64_t now_ns) const noexcept {
  return first_ != nullptr && now_ns - first_->sent_ns > settings_.patience_ms * kNsPerMs;
}

// ---- calls

Connection::Call* Connection::make(Answered answered, void* context, Script script) noexcept {
  auto* call = new (std::nothrow) Call;
  if (call != nullptr) {
    call->connection = this;
    call->answered = answered;
    call->context = context;
    call->script = script;
  }
  return call;
}

// The call is the connection's from here on, whatever becomes of it.
bool Connection::send(Call* call, std::span<const std::string_view> words) noexcept {
  constexpr size_t kMost = 32;
  const char* texts[kMost];
  size_t sizes[kMost];
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
  ++calls_;
  return true;
}

bool Connection::send_again(Call* call) noexcept {
  if (failed_ || redis_ == nullptr ||
      redisAsyncFormattedCommand(redis_, on_reply, call, call->bytes,
                                 static_cast<size_t>(call->size)) != REDIS_OK) {
    return false;
  }
  call->sent_ns = monotonic_ns();
  call->next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = call;
  last_ = call;
  return true;
}

bool Connection::call(Script script, std::string_view key,
                      std::span<const std::string_view> arguments, Answered answered,
                      void* context) noexcept {
  std::array<std::string_view, 32> words{
      "EVALSHA", {shas_[static_cast<size_t>(script)], 40}, "1", key};
  std::copy(arguments.begin(), arguments.end(), words.begin() + 4);
  Call* call = make(answered, context, script);
  if (call == nullptr) {
    return false;
  }
  call->is_script = true;
  return send(call, {words.data(), 4 + arguments.size()});
}

bool Connection::remove(std::string_view key) noexcept {
  const std::string_view words[] = {"UNLINK", key};
  Call* call = make(nullptr, nullptr, Script::kLease);
  return call != nullptr && send(call, words);
}

void Connection::on_reply(redisAsyncContext*, void* answer, void* call) noexcept {
  auto* mine = static_cast<Call*>(call);
  mine->connection->on_answer(mine, static_cast<const redisReply*>(answer));
}

void Connection::on_answer(Call* call, const redisReply* answer) noexcept {
  // In order: it is the first.
  first_ = call->next;
  if (answer != nullptr && call->is_script && lost_script(call, *answer)) {
    return;
  }
  if (answer != nullptr && is_unwell(*answer) && call->step != Call::Step::kPolicy) {
    lose(view(*answer));
    answer = nullptr;
  }
  if (answer != nullptr && call->step != Call::Step::kNone) {
    on_greeted(*call, *answer);
  } else if (call->answered != nullptr) {
    call->answered(call->context, answer);
  }
  delete call;
}

// NOSCRIPT: the server was restarted, or its scripts were flushed. The call goes out once more,
// behind the script.
bool Connection::lost_script(Call* call, const redisReply& answer) noexcept {
  if (!is_error(answer, "NOSCRIPT") || call->again || failed_) {
    return false;
  }
  ++reloads_;
  if (!loading_[static_cast<size_t>(call->script)]) {
    loading_[static_cast<size_t>(call->script)] = true;
    load(call->script);
  }
  call->again = true;
  return send_again(call);
}

void Connection::load(Script script) noexcept {
  const std::string_view words[] = {"SCRIPT", "LOAD", text_of(script)};
  if (Call* call = make(nullptr, nullptr, script); call != nullptr) {
    call->step = Call::Step::kLoad;
    send(call, words);
  }
}

// ---- its life

void Connection::open() noexcept {
  const Address& to = settings_.address;
  opened_ns_ = monotonic_ns();
  failed_ = false;
  loop_.set_timer(*this, kTickMs);
  redis_ = to.path.empty() ? redisAsyncConnect(to.ip.c_str(), to.port)
                           : redisAsyncConnectUnix(to.path.c_str());
  if (redis_ == nullptr || redis_->err != 0) {
    return lose(redis_ == nullptr ? "no memory" : redis_->errstr);
  }
  state_ = State::kConnecting;
  reading_ = writing_ = false;
  if (!loop_.open(redis_->c.fd, *this)) {
    return lose("no connections are left in this process: raise worker_connections");
  }
  attach();
  greet();
}

void Connection::attach() noexcept {
  redis_->data = this;
  redis_->ev.data = this;
  // hiredis says what it waits for; its cleanup comes before it closes the descriptor.
  redis_->ev.addRead = [](void* mine) {
    auto& self = *static_cast<Connection*>(mine);
    self.reading_ = true;
    self.want();
  };
  redis_->ev.delRead = [](void* mine) {
    auto& self = *static_cast<Connection*>(mine);
    self.reading_ = false;
    self.want();
  };
  redis_->ev.addWrite = [](void* mine) {
    auto& self = *static_cast<Connection*>(mine);
    self.writing_ = true;
    self.want();
  };
  redis_->ev.delWrite = [](void* mine) {
    auto& self = *static_cast<Connection*>(mine);
    self.writing_ = false;
    self.want();
  };
  redis_->ev.cleanup = [](void* mine) { static_cast<Connection*>(mine)->loop_.close(); };
  redisAsyncSetConnectCallback(redis_, [](const redisAsyncContext* redis, int status) {
    auto& self = *static_cast<Connection*>(redis->data);
    if (status == REDIS_OK) {
      self.state_ = State::kGreeting;
    } else {
      self.lose(redis->errstr);
      self.redis_ = nullptr;  // hiredis frees it
    }
  });
  redisAsyncSetDisconnectCallback(redis_, [](const redisAsyncContext* redis, int) {
    auto& self = *static_cast<Connection*>(redis->data);
    if (self.redis_ == redis) {
      self.lose(redis->err == 0 ? "the connection ended" : redis->errstr);
      self.redis_ = nullptr;
    }
  });
}

void Connection::want() noexcept { loop_.want(reading_, writing_); }

void Connection::on_readable() noexcept {
  inside_ = true;
  redisAsyncHandleRead(redis_);
  inside_ = false;
  if (failed_) {
    close();
  }
}

void Connection::on_writable() noexcept {
  inside_ = true;
  redisAsyncHandleWrite(redis_);
  inside_ = false;
  if (failed_) {
    close();
  }
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
  for (size_t script = 0; script < kScripts; ++script) {
    load(static_cast<Script>(script));
  }
  ask(Step::kPolicy, {"CONFIG", "GET", "maxmemory-policy"});
}

void Connection::on_greeted(const Call& call, const redisReply& answer) noexcept {
  using Step = Call::Step;
  const auto check_policy = [&](std::string_view policy) {
    if (policy == "noeviction") {
      return call_hosts();
    }
    const std::string why = policy.empty()
                                ? "it does not say its maxmemory-policy, which must be noeviction"
                                : "its maxmemory-policy is " + std::string(policy) +
                                      ", and what it evicts would be admitted again: set it to "
                                      "noeviction";
    lose(why);
  };
  if (failed_) {
    return;
  }
  if (answer.type == REDIS_REPLY_ERROR && call.step != Step::kPolicy) {
    return lose(view(answer));
  }
  switch (call.step) {
    case Step::kPlain:
    case Step::kNone:
      return;
    case Step::kLoad: {
      const auto script = static_cast<size_t>(call.script);
      loading_[script] = false;
      if (answer.type != REDIS_REPLY_STRING || answer.len != sizeof shas_[script]) {
        return lose("it loads no scripts: is it a Redis?");
      }
      std::memcpy(shas_[script], answer.str, sizeof shas_[script]);
      return;
    }
    case Step::kPolicy:
      if (answer.type == REDIS_REPLY_ARRAY && answer.elements == 2 &&
          answer.element[1]->type == REDIS_REPLY_STRING) {
        return check_policy(view(*answer.element[1]));
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
                              ? info_of(view(answer), "maxmemory_policy:")
                              : std::string_view());
    case Step::kHosts:
      if (answer.type != REDIS_REPLY_INTEGER || answer.integer < 1) {
        return lose("its answer is not understood: is it a Redis?");
      }
      user_.on_hosts(static_cast<uint64_t>(answer.integer));
      return state_ == State::kGreeting ? be_ready() : void();
  }
}

void Connection::be_ready() noexcept {
  state_ = State::kReady;
  pause_ms_ = kFirstPauseMs;
  user_.on_ready();
}

void Connection::call_hosts() noexcept {
  hosts_called_ns_ = monotonic_ns();
  const std::string key = prefix_ + "hosts";
  const std::string stays = std::to_string(kHostStaysMs);
  const std::string_view words[] = {"EVALSHA", {shas_[0], 40}, "1",  key,
                                    "0",       settings_.host, stays};
  if (Call* call = make(nullptr, nullptr, Script::kHosts); call != nullptr) {
    call->step = Call::Step::kHosts;
    call->is_script = true;
    send(call, words);
  }
}

// Every kTickMs while it is open; once, when it is to be opened again.
void Connection::on_time() noexcept {
  const int64_t now_ns = monotonic_ns();
  if (state_ == State::kClosed) {
    return open();
  }
  const bool silent = first_ != nullptr && now_ns - first_->sent_ns > kDeadMs * kNsPerMs;
  const bool late = state_ != State::kReady && now_ns - opened_ns_ > kDeadMs * kNsPerMs;
  if (silent || late) {
    lose(state_ == State::kConnecting ? "no connection within a second"
                                      : "no answer within a second");
    return;
  }
  if (ready() && now_ns - hosts_called_ns_ >= kHostsEveryMs * kNsPerMs) {
    call_hosts();
  }
  loop_.set_timer(*this, kTickMs);
}

void Connection::lose(std::string_view why) noexcept {
  if (failed_) {
    return;
  }
  failed_ = true;
  state_ = State::kClosed;
  const std::string text = name_ + ": " + std::string(why);
  user_.on_lost(text);
  if (!inside_) {
    close();
  }
  pause();
}

// What is pending is answered with nullptr by hiredis.
void Connection::close() noexcept {
  state_ = State::kClosed;
  failed_ = true;
  if (redisAsyncContext* redis = redis_; redis != nullptr && !inside_) {
    redis_ = nullptr;
    redisAsyncFree(redis);
    first_ = last_ = nullptr;
  }
}

void Connection::pause() noexcept {
  random_ = random_ * 6364136223846793005U + 1442695040888963407U;
  const int64_t jitter = static_cast<int64_t>(random_ >> 33) % (pause_ms_ + 1);
  loop_.set_timer(*this, pause_ms_ / 2 + jitter);
  pause_ms_ = std::min(2 * pause_ms_, kLongestPauseMs);
}

}  // namespace penstock::redis
