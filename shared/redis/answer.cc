#include "shared/redis/answer.h"

#include <algorithm>
#include <charconv>

namespace penstock::redis {

std::string_view info_of(std::string_view text, std::string_view name) noexcept {
  for (size_t end = 0; !text.empty(); text.remove_prefix(std::min(end + 1, text.size()))) {
    end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.starts_with(name) && line.substr(name.size()).starts_with(':')) {
      line.remove_prefix(name.size() + 1);
      return line.substr(0, line.find('\r'));
    }
  }
  return {};
}

uint64_t number_in_info(std::string_view text, std::string_view name) noexcept {
  const std::string_view value = info_of(text, name);
  uint64_t number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  return number;
}

bool is_numbers(const redisReply& answer, size_t count) noexcept {
  constexpr long long kMost = 1LL << 53;
  if (answer.type != REDIS_REPLY_ARRAY || answer.elements != count) {
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    const redisReply& number = *answer.element[i];
    if (number.type != REDIS_REPLY_INTEGER || number.integer < 0 || number.integer > kMost) {
      return false;
    }
  }
  return true;
}

}  // namespace penstock::redis
