// A request to one of the order's scripts: its words, how it is sent, and how its answer is read.
#pragma once

#include <bit>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/clock.h"
#include "shared/redis/answer.h"
#include "worker/queue/shared_order/shared_order.h"

namespace penstock::queue {

// A double has not all of its bits: to a script it is a text.
inline std::string bytes_of(uint64_t number) {
  std::string bytes(sizeof number, '\0');
  for (size_t i = bytes.size(); i-- > 0; number >>= 8) {
    bytes[i] = static_cast<char>(number);
  }
  return bytes;
}
// As struct.unpack() reads a 'd' behind '>'.
inline std::string double_of(int64_t number) {
  return bytes_of(std::bit_cast<uint64_t>(static_cast<double>(number)));
}
inline uint64_t number_of(std::string_view bytes) {
  uint64_t number = 0;
  for (const char byte : bytes) {
    number = number << 8 | static_cast<uint8_t>(byte);
  }
  return number;
}

inline bool is_number(const redisReply& answer) { return answer.type == REDIS_REPLY_INTEGER; }
inline bool is_array(const redisReply& answer, size_t least) {
  return answer.type == REDIS_REPLY_ARRAY && answer.elements >= least;
}
inline int64_t number_at(const redisReply& answer, size_t i) {
  return is_number(*answer.element[i]) ? answer.element[i]->integer : 0;
}
inline std::string text_at(const redisReply& answer, size_t i) {
  return redis::is_text(*answer.element[i]) ? std::string(redis::text_of(*answer.element[i]))
                                            : std::string();
}

// A script's arguments, and the texts of those that were numbers.
class ScriptWords {
 public:
  ScriptWords& text(std::string_view text) {
    words_.push_back(text);
    return *this;
  }
  ScriptWords& own(std::string text) { return this->text(texts_.emplace_back(std::move(text))); }
  ScriptWords& number(int64_t number) { return own(std::to_string(number)); }
  std::span<const std::string_view> all() const { return words_; }

 private:
  std::deque<std::string> texts_;
  std::vector<std::string_view> words_;
};

// `then` is told, unless `*alive` is false by then. `read`: false: the answer is not understood.
// False: it was not sent, and is not answered.
template <typename T>
bool ask_script(redis::Servers& servers, redis::Script script, std::string_view key,
                const ScriptWords& words, bool (*read)(const redisReply&, T&),
                SharedOrder::Then<T> then, std::shared_ptr<bool> alive) {
  using Trouble = SharedOrder::Trouble;
  struct Asked {
    bool (*read)(const redisReply&, T&);
    SharedOrder::Then<T> then;
    std::shared_ptr<bool> alive;
  };
  auto asked = std::make_unique<Asked>(Asked{read, std::move(then), std::move(alive)});
  const auto answered = [](void* context, const redisReply* reply) noexcept {
    const std::unique_ptr<Asked> self(static_cast<Asked*>(context));
    if (!*self->alive) {
      return;
    }
    SharedOrder::Answer<T> answer;
    if (reply == nullptr) {
      answer.trouble = Trouble::kUnknown;
    } else if (redis::is_error(*reply)) {
      answer.trouble = Trouble::kRefused;
      answer.why = redis::text_of(*reply);
    } else if (!self->read(*reply, answer.value)) {
      answer.trouble = Trouble::kRefused;
      answer.why = "its answer is not understood: is it a Redis?";
    }
    self->then(answer);
  };
  if (!servers.call(script, key, words.all(), answered, asked.get())) {
    return false;
  }
  static_cast<void>(asked.release());
  return true;
}

template <typename T>
bool SharedOrder::ask(redis::Script script, const ScriptWords& words,
                      bool (*read)(const redisReply&, T&), Then<T> then) {
  const auto counted = [this, sent_ns = monotonic_ns(), then = std::move(then)](Answer<T>& answer) {
    if (answer.trouble != Trouble::kUnknown) {
      ++calls_.answered;
      calls_.ns += monotonic_ns() - sent_ns;
    }
    then(answer);
  };
  return ask_script<T>(servers_, script, key_, words, read, counted, alive_);
}

}  // namespace penstock::queue
