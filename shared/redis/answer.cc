#include "shared/redis/answer.h"

namespace penstock::redis {

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
