// A runner, which says what jobs answer, and homes, which hear it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/fixtures/redis_server.h"
#include "tests/unit/shared_answers/hosts.h"
#include "worker/queue/shared_answers/answer_reader.h"
#include "worker/queue/shared_answers/answer_writer.h"

namespace penstock::queue {

inline const std::string kKey = "test:q1:{q}:";

// What a follower was told, as words: "h:head", "c:chunk", "!2" (restarted), "lost".
class Told final : public AnswerReader::Follower {
 public:
  void on_part(const Part& part) override {
    words.push_back(std::string(1, " bhcne"[static_cast<size_t>(part.kind)]) + ":" +
                    std::string(part.bytes));
    last = part.place;
    bytes += part.kind == Part::Kind::kChunk ? part.bytes.size() : 0;
    on_told();
  }
  void on_restarted(uint64_t fence) override { words.push_back("!" + std::to_string(fence)); }
  void on_lost() override {
    words.emplace_back("lost");
    on_told();
  }
  void on_over() override { words.emplace_back("over"); }
  bool has(const std::string& word) const {
    return std::find(words.begin(), words.end(), word) != words.end();
  }
  std::string all() const {
    std::string text;
    for (const std::string& word : words) {
      text += (text.empty() ? "" : " ") + word;
    }
    return text;
  }

  std::vector<std::string> words;
  PartPlace last;
  size_t bytes = 0;
  std::function<void()> on_told = [] {};
};

class Home final : redis::Subscription::Listener {
 public:
  Home(Turns& turns, const std::string& socket, std::string called,
       AnswerReader::Settings settings = {})
      : host(turns, socket),
        name(std::move(called)),
        reader(host.servers, host.subscription, kKey, settings) {
    host.subscription.listen(kKey + "c|" + name, *this);
  }

  Host host;
  const std::string name;
  AnswerReader reader;
  int listening = 0;
  bool deaf = false;  // messages are lost on the way
  int missed = 0;     // those

 private:
  void on_listening(std::string_view) override {
    ++listening;
    reader.on_listening();
  }
  void on_message(std::string_view, std::string_view text) override {
    missed += deaf ? 1 : 0;
    if (!deaf) {
      reader.on_message(text);
    }
  }
};

class AnswersTest : public testing::Test {
 protected:
  explicit AnswersTest(AnswerWriter::Settings settings = {},
                       AnswerReader::Settings reading = {.fill_for_ns = kNsPerSec,
                                                         .grace_ns = 500 * kNsPerMs,
                                                         .look_every_ns = 3 * kNsPerSec})
      : reading_(reading), writer_(runner_.servers, kKey, settings) {
    turns_.on_turn = [this](int64_t now_ns) {
      writer_.advance_to(now_ns);
      home_.reader.advance_to(now_ns);
      other_.reader.advance_to(now_ns);
    };
    turns_.next_event = [this] {
      return std::min(
          {writer_.next_event(), home_.reader.next_event(), other_.reader.next_event()});
    };
  }
  void SetUp() override { ASSERT_TRUE(until_up()); }

  bool until(const std::function<bool()>& is_so) { return turns_.until(is_so); }
  bool until_up() {
    return until([&] {
      return runner_.up() && home_.host.up() && other_.host.up() && home_.listening > 0 &&
             other_.listening > 0;
    });
  }
  // What Redis and all hosts have to do meanwhile is done.
  bool for_ms(int64_t ms) {
    const int64_t end_ns = monotonic_ns() + ms * kNsPerMs;
    const auto before = turns_.next_event;
    turns_.next_event = [&] { return std::min(before(), end_ns); };
    const bool done = until([&] { return monotonic_ns() >= end_ns; });
    turns_.next_event = before;
    return done;
  }
  bool until_kept(uint64_t entries) {
    return until([&] { return writer_.counts().entries >= entries; });
  }
  std::string stream(const std::string& id) const {
    return server_.ask("XRANGE " + kKey + "e|" + id + " - +").value_or("");
  }

  RedisServer server_;
  Turns turns_;
  Host runner_{turns_, server_.socket()};
  const AnswerReader::Settings reading_;
  Home home_{turns_, server_.socket(), "home-one", reading_};
  Home other_{turns_, server_.socket(), "home-two", reading_};
  AnswerWriter writer_;
  Told told_;
};

}  // namespace penstock::queue
