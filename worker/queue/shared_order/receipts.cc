#include "worker/queue/shared_order/receipts.h"

#include "worker/queue/shared_order/script_request.h"

namespace penstock::queue {
namespace {

// What each script begins with: the time, no aging, and nothing is kept by it.
ScriptWords words_at(int64_t now_us) {
  ScriptWords words;
  words.number(now_us).number(0).number(0);
  return words;
}

}  // namespace

bool Receipts::charge(std::string_view home, std::span<const Charged> jobs, Then<bool> then) {
  ScriptWords words = words_at(now_us_);
  words.text(home);
  for (const Charged& job : jobs) {
    words.text(job.id).text(job.receipt);
  }
  const auto read = [](const redisReply& answer, bool&) { return is_number(answer); };
  return ask_script<bool>(servers_, order_script::kCharge, key_, words, read, std::move(then),
                          alive_);
}

bool Receipts::settle(std::span<const std::string_view> ids, Then<std::vector<Whose>> then) {
  std::string list;
  for (const std::string_view id : ids) {
    list.append(list.empty() ? "" : " ").append(id);
  }
  ScriptWords words = words_at(now_us_);
  words.text(list);
  const auto read = [](const redisReply& answer, std::vector<Whose>& whose) {
    if (!is_array(answer, 0)) {
      return false;
    }
    for (size_t i = 0; i < answer.elements; ++i) {
      const int64_t is = number_at(answer, i);
      whose.push_back(is == 0 ? Whose::kSettled : is == 1 ? Whose::kOurs : Whose::kAgain);
    }
    return true;
  };
  return ask_script<std::vector<Whose>>(servers_, order_script::kSettle, key_, words, read,
                                        std::move(then), alive_);
}

bool Receipts::inherit(size_t most, size_t bytes, size_t receipt_bytes, Then<Page> then) {
  ScriptWords words = words_at(now_us_);
  words.number(static_cast<int64_t>(most)).number(static_cast<int64_t>(bytes));
  words.number(static_cast<int64_t>(receipt_bytes));
  const auto read = [](const redisReply& answer, Page& page) {
    constexpr size_t kEach = 6;
    if (!is_array(answer, 2) || !is_array(*answer.element[1], 0)) {
      return false;
    }
    page.more = number_at(answer, 0) != 0;
    const redisReply& all = *answer.element[1];
    for (size_t i = 0; i + kEach <= all.elements; i += kEach) {
      const std::string how = text_at(all, i + 3);
      page.all.push_back({.id = text_at(all, i),
                          .receipt = text_at(all, i + 1),
                          .known = {.state = SharedOrder::Known::State::kOver,
                                    .attempts = static_cast<uint32_t>(number_at(all, i + 2)),
                                    .how = how.empty() ? '\0' : how.front(),
                                    .result = text_at(all, i + 5),
                                    .ended_us = number_at(all, i + 4)}});
    }
    return true;
  };
  return ask_script<Page>(servers_, order_script::kInherit, key_, words, read, std::move(then),
                          alive_);
}

}  // namespace penstock::queue
