// What is asked of an answer before it is believed.
#pragma once

#include <hiredis/hiredis.h>

#include <cstdint>
#include <string_view>

namespace penstock::redis {

// Of a text or an error. REQUIRES: it is one.
inline std::string_view text_of(const redisReply& answer) noexcept {
  return {answer.str, answer.len};
}
inline bool is_text(const redisReply& answer) noexcept {
  return answer.type == REDIS_REPLY_STRING || answer.type == REDIS_REPLY_STATUS;
}
inline bool is_error(const redisReply& answer, std::string_view kind = {}) noexcept {
  return answer.type == REDIS_REPLY_ERROR && text_of(answer).starts_with(kind);
}

// The value of a line "NAME:VALUE" of INFO; empty: there is none.
std::string_view info_of(std::string_view text, std::string_view name) noexcept;
// The same of a number; 0: there is none.
uint64_t number_in_info(std::string_view text, std::string_view name) noexcept;

// Whether it is so many numbers from 0 to 2^53, such as a script answers with.
bool is_numbers(const redisReply& answer, size_t count) noexcept;
// REQUIRES: is_numbers, of more than i.
inline uint64_t number_of(const redisReply& answer, size_t i) noexcept {
  return static_cast<uint64_t>(answer.element[i]->integer);
}

}  // namespace penstock::redis
