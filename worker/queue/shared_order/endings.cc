#include "worker/queue/shared_order/endings.h"

#include <utility>

#include "worker/queue/shared_order/script_request.h"

namespace penstock::queue {
namespace {

// What each script begins with: Redis's time, no aging, and nothing is kept by it.
ScriptWords words() {
  ScriptWords words;
  words.number(0).number(0).number(0);
  return words;
}

SharedOrder::Known known_of(int64_t attempts, const std::string& how, int64_t ended_us,
                            std::string result) {
  return {.state = SharedOrder::Known::State::kOver,
          .attempts = static_cast<uint32_t>(attempts),
          .how = how.empty() ? '\0' : how.front(),
          .result = std::move(result),
          .ended_us = ended_us};
}

struct Read : Endings::Page {
  std::string gone_until;
};

}  // namespace

bool Endings::take(std::string_view kind, size_t most, int64_t lease_us, size_t bytes,
                   Then<Page> then) {
  ScriptWords words = queue::words();
  words.text(kind).number(static_cast<int64_t>(most)).number(lease_us);
  words.number(kind.starts_with("n|") ? 1 : 0)
      .text(kind == kUrls ? std::string_view(gone_until_) : "+inf")
      .number(static_cast<int64_t>(bytes));
  const auto read = [](const redisReply& answer, Read& page) {
    constexpr size_t kEach = 8;
    if (!is_array(answer, 4) || !is_array(*answer.element[2], 0) ||
        !is_array(*answer.element[3], 0)) {
      return false;
    }
    page.due_us = number_at(answer, 0);
    page.all = static_cast<uint64_t>(number_at(answer, 1));
    const redisReply& gone = *answer.element[2];
    for (size_t i = 0; i + 1 < gone.elements; i += 2) {
      page.gone.push_back(text_at(gone, i));
      page.gone_until = text_at(gone, i + 1);
    }
    const redisReply& taken = *answer.element[3];
    for (size_t i = 0; i + kEach <= taken.elements; i += kEach) {
      page.taken.push_back({.id = text_at(taken, i),
                            .fence = text_at(taken, i + 1),
                            .tries = static_cast<uint32_t>(number_at(taken, i + 2)),
                            .owner = number_of(text_at(taken, i + 3)),
                            .known = known_of(number_at(taken, i + 4), text_at(taken, i + 5),
                                              number_at(taken, i + 6), text_at(taken, i + 7))});
    }
    return true;
  };
  return ask_script<Read>(
      servers_, order_script::kTell, key_, words, read,
      [this, then = std::move(then)](SharedOrder::Answer<Read>& answer) {
        if (!answer.value.gone_until.empty()) {
          gone_until_ = answer.value.gone_until;
        }
        SharedOrder::Answer<Page> page{
            .value = std::move(answer.value), .trouble = answer.trouble, .why = answer.why};
        then(page);
      },
      alive_);
}

bool Endings::look(std::string_view kind, std::string_view id, std::string_view fence, size_t most,
                   int64_t lease_us, Then<Ending> then) {
  ScriptWords words = queue::words();
  words.text(kind).text(id).text(fence).number(lease_us).number(static_cast<int64_t>(most));
  const auto read = [](const redisReply& answer, Ending& ending) {
    if (!is_array(answer, 1)) {
      return false;
    }
    ending.fence = text_at(answer, 0);
    if (ending.fence.empty() || answer.elements < 5) {
      return ending.fence.empty();
    }
    ending.known = known_of(number_at(answer, 1), text_at(answer, 2), number_at(answer, 4),
                            text_at(answer, 3));
    return true;
  };
  return ask_script<Ending>(servers_, order_script::kEnding, key_, words, read, std::move(then),
                            alive_);
}

bool Endings::told(std::string_view kind, const Taken& ending, int64_t after_us, Outcome outcome,
                   std::string_view gone, Then<bool> then) {
  ScriptWords words = queue::words();
  words.text(kind).text(ending.id).text(ending.fence).number(ending.tries).number(after_us);
  words.number(static_cast<int64_t>(outcome)).text(gone);
  const auto read = [](const redisReply& answer, bool& ours) {
    ours = is_number(answer) && answer.integer == 1;
    return is_number(answer);
  };
  return ask_script<bool>(servers_, order_script::kTold, key_, words, read, std::move(then),
                          alive_);
}

}  // namespace penstock::queue
