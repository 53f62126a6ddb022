// The peers' protocols, as their documents tell them: beanstalkd's
// (https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt) and Redis' RESP2
// (https://redis.io/docs/latest/develop/reference/protocol-spec/) with a stream and one consumer
// group.
#include <charconv>
#include <deque>

#include "shared/base/clock.h"
#include "tests/bench/queue_load.h"

namespace penstock::load {
namespace {

constexpr std::string_view kEnd = "\r\n";

long number_at(std::string_view text) {
  long value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Sends `request` for each job, and waits for a reply that begins with `good`.
class Producer : public Session {
 public:
  Producer(const Plan& plan, Tally& tally) : Session(tally), depth_(plan.depth) {}

  void begin() override { resume(); }
  void resume() override {
    while (began_ns_.size() < depth_ && tally_.may_send()) {
      out += request_;
      began_ns_.push_back(monotonic_ns());
      ++tally_.sent;
    }
  }

 protected:
  void answered() {
    record(tally_, began_ns_.front());
    began_ns_.pop_front();
  }
  std::string request_;

 private:
  const unsigned depth_;
  std::deque<int64_t> began_ns_;
};

class BeanstalkProducer final : public Producer {
 public:
  BeanstalkProducer(const Plan& plan, Tally& tally) : Producer(plan, tally) {
    request_ = "put 1024 0 120 " + std::to_string(plan.body_bytes) + "\r\n" +
               std::string(plan.body_bytes, 'x') + "\r\n";
  }
  size_t take(std::string_view bytes) override {
    size_t at = 0;
    for (size_t end; (end = bytes.find(kEnd, at)) != bytes.npos; at = end + kEnd.size()) {
      if (!bytes.substr(at).starts_with("INSERTED")) {
        die("beanstalkd does not take a job:", bytes.substr(at));
      }
      answered();
    }
    resume();
    return at;
  }
};

class BeanstalkConsumer final : public Session {
 public:
  using Session::Session;
  void begin() override { reserve(); }
  size_t take(std::string_view bytes) override {
    const size_t end = bytes.find(kEnd);
    if (end == bytes.npos) {
      return 0;
    }
    const std::string_view line = bytes.substr(0, end);
    size_t size = end + kEnd.size();
    if (line.starts_with("RESERVED ")) {
      const size_t gap = line.find(' ', 9);
      size += static_cast<size_t>(number_at(line.substr(gap + 1))) + kEnd.size();
      if (bytes.size() < size) {
        return 0;
      }
      out.append("delete ").append(line.substr(9, gap - 9)).append(kEnd);
    } else if (line == "DELETED") {
      ++tally_.completed;
      reserve();
    } else if (line == "TIMED_OUT" || line == "DEADLINE_SOON") {
      reserve();
    } else {
      die("beanstalkd says", line);
    }
    return size;
  }

 private:
  void reserve() { out += "reserve-with-timeout 1\r\n"; }
};

std::string command(std::initializer_list<std::string_view> words) {
  std::string text = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string_view word : words) {
    text.append("$").append(std::to_string(word.size())).append(kEnd).append(word).append(kEnd);
  }
  return text;
}

// The length of the one value that `bytes` begins with; 0: it is not all there.
size_t value_bytes(std::string_view bytes) {
  const size_t end = bytes.find(kEnd);
  if (end == bytes.npos) {
    return 0;
  }
  size_t size = end + kEnd.size();
  const long count = number_at(bytes.substr(1));
  if (bytes[0] == '$' && count >= 0) {
    size += static_cast<size_t>(count) + kEnd.size();
  } else if (bytes[0] == '*') {
    for (long i = 0; i < count; ++i) {
      const size_t part = size < bytes.size() ? value_bytes(bytes.substr(size)) : 0;
      if (part == 0) {
        return 0;
      }
      size += part;
    }
  } else if (bytes[0] == '-') {
    die("Redis says", bytes.substr(0, end));
  }
  return size <= bytes.size() ? size : 0;
}

class RedisProducer final : public Producer {
 public:
  RedisProducer(const Plan& plan, Tally& tally) : Producer(plan, tally) {
    request_ = command({"XADD", "jobs", "*", "b", std::string(plan.body_bytes, 'x')});
  }
  size_t take(std::string_view bytes) override {
    size_t at = 0;
    while (at < bytes.size()) {
      const size_t size = value_bytes(bytes.substr(at));
      if (size == 0) {
        break;
      }
      answered();
      at += size;
    }
    resume();
    return at;
  }
};

// XREADGROUP, then XACK and XDEL of what it gave, as one write.
class RedisConsumer final : public Session {
 public:
  RedisConsumer(Tally& tally, unsigned number)
      : Session(tally), name_("c" + std::to_string(number)) {}
  void begin() override { reserve(); }
  size_t take(std::string_view bytes) override {
    size_t at = 0;
    while (at < bytes.size()) {
      const std::string_view rest = bytes.substr(at);
      const size_t size = value_bytes(rest);
      if (size == 0) {
        break;
      }
      hear(rest.substr(0, size));
      at += size;
    }
    return at;
  }

 private:
  void hear(std::string_view value) {
    if (waited_ == 0) {
      if (value.starts_with("*-1")) {
        return reserve();
      }
      // [[stream, [[id, [field, value]]]]]: the id is the second bulk string.
      const size_t stream = value.find("jobs\r\n");
      const size_t length = value.find('$', stream);
      const size_t id = value.find(kEnd, length) + kEnd.size();
      const std::string_view name = value.substr(id, value.find(kEnd, id) - id);
      out += command({"XACK", "jobs", "workers", name}) + command({"XDEL", "jobs", name});
      waited_ = 2;
    } else if (--waited_ == 0) {
      ++tally_.completed;
      reserve();
    }
  }
  void reserve() {
    out += command({"XREADGROUP", "GROUP", "workers", name_, "COUNT", "1", "BLOCK", "1000",
                    "STREAMS", "jobs", ">"});
  }

  const std::string name_;
  int waited_ = 0;  // replies to what acknowledges
};

// As many consumers as producers where jobs are also taken.
template <typename Produce, typename Consume>
Sessions both(const Plan& plan, Produce produce, Consume consume) {
  if (plan.mode != "enqueue" && plan.mode != "whole" && plan.mode != "drain") {
    die("the peers know the modes enqueue, whole and drain, not", plan.mode);
  }
  Sessions sessions;
  for (unsigned i = 0; i < plan.clients; ++i) {
    if (plan.mode != "drain") {
      sessions.push_back(produce());
    }
    if (plan.mode != "enqueue") {
      sessions.push_back(consume(i));
    }
  }
  return sessions;
}

}  // namespace

Sessions beanstalk_sessions(const Plan& plan, Tally& tally) {
  return both(
      plan, [&] { return std::make_unique<BeanstalkProducer>(plan, tally); },
      [&](unsigned) { return std::make_unique<BeanstalkConsumer>(tally); });
}

Sessions redis_sessions(const Plan& plan, Tally& tally) {
  return both(
      plan, [&] { return std::make_unique<RedisProducer>(plan, tally); },
      [&](unsigned i) { return std::make_unique<RedisConsumer>(tally, i); });
}

}  // namespace penstock::load
