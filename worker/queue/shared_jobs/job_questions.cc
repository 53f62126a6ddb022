#include "worker/queue/shared_jobs/job_questions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "worker/queue/shared_order/scripts.h"

namespace penstock::queue {
namespace {

// The next word, and the rest is what follows it.
std::string_view take_word(std::string_view& rest) {
  const std::string_view word = rest.substr(0, rest.find(' '));
  rest.remove_prefix(std::min(word.size() + 1, rest.size()));
  return word;
}

}  // namespace

void JobQuestions::say(std::string_view host, std::string_view text) {
  const auto unheard = [](void*, const redisReply*) noexcept {};
  servers_.call(order_script::kSay, key_, std::array{host, text}, unheard, nullptr);
}

void JobQuestions::ask(std::string_view from, std::string_view to, std::string_view what,
                       Told told) {
  if (asked_.size() >= kMost) {
    return told({});
  }
  const uint64_t number = ++last_number_;
  asked_.emplace(number, Asked{monotonic_ns() + kPatienceNs, std::move(told)});
  say(to, std::string("ask ")
              .append(std::to_string(number))
              .append(" ")
              .append(from)
              .append(" ")
              .append(what));
}

bool JobQuestions::on_message(std::string_view text) {
  const std::string_view kind = take_word(text);
  const bool is_question = kind == "ask";
  if (!is_question && kind != "told") {
    return false;
  }
  const std::string_view number = take_word(text);
  if (is_question) {
    const std::string_view host = take_word(text);
    say(host, std::string("told ").append(number).append(" ").append(answers_(text)));
    return true;
  }
  uint64_t which = 0;
  std::from_chars(number.data(), number.data() + number.size(), which);
  if (auto found = asked_.extract(which); !found.empty()) {
    found.mapped().told(text);
  }
  return true;
}

void JobQuestions::advance_to(int64_t now_ns) {
  while (!asked_.empty() && asked_.begin()->second.until_ns <= now_ns) {
    const auto first = asked_.extract(asked_.begin());
    first.mapped().told({});
  }
}

}  // namespace penstock::queue
