// Text, put together in memory that is already there.
#pragma once

#include "ngx_module/nginx.h"

#include <algorithm>
#include <charconv>

#include "shared/base/clock.h"
#include "shared/base/utf8.h"

namespace penstock {

// Appends into memory that was measured to be enough.
class Text {
 public:
  static constexpr size_t kMaxDigits = 20;

  explicit Text(char* at) noexcept : at_(at) {}
  Text& raw(std::string_view s) noexcept {
    at_ = std::copy(s.begin(), s.end(), at_);  // memcpy() takes no null, not even of no bytes
    return *this;
  }
  // The same without a call, for short text that is known when this is compiled.
  template <size_t kSize>
  Text& literal(const char (&s)[kSize]) noexcept {
    __builtin_memcpy(at_, s, kSize - 1);
    at_ += kSize - 1;
    return *this;
  }
  Text& number(uint64_t n) noexcept {
    if (n < 10) {
      *at_++ = static_cast<char>('0' + n);
      return *this;
    }
    at_ = std::to_chars(at_, at_ + kMaxDigits, n).ptr;
    return *this;
  }
  // 20ms, 12s, 6m0s, 1h0m0s: as OpenAI writes durations.
  Text& duration(int64_t ns) noexcept {
    const int64_t ms = (ns + kNsPerMs - 1) / kNsPerMs;
    if (ms < 1000) {
      return number(static_cast<uint64_t>(ms)).literal("ms");
    }
    const auto s = static_cast<uint64_t>((ms + 999) / 1000);
    if (s >= 3600) {
      number(s / 3600).literal("h");
    }
    if (s >= 60) {
      number(s / 60 % 60).literal("m");
    }
    return number(s % 60).literal("s");
  }
  char* at() const noexcept { return at_; }

 private:
  char* at_;
};

// What would end a line of a log or a header, or forge another.
inline bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < ' ' || c == 0x7F; }

// Others' text as one line of a log, in the pool: penstock::one_line() of the beginning that a line
// bears. data is nullptr when the pool is exhausted.
inline ngx_str_t one_line(ngx_pool_t* pool, std::string_view text) noexcept {
  text = text.substr(0, 1024);  // NGX_MAX_ERROR_STR has to bear more than this
  auto* line = static_cast<u_char*>(ngx_pnalloc(pool, text.size()));
  return {line == nullptr ? 0 : one_line(text, reinterpret_cast<char*>(line)), line};
}

// A number's digits in the pool; data is nullptr when the pool is exhausted.
inline ngx_str_t copy_number(ngx_pool_t* pool, uint64_t number) noexcept {
  char digits[Text::kMaxDigits];
  const char* end = Text(digits).number(number).at();
  return copy(pool, {digits, static_cast<size_t>(end - digits)});
}

// Formats into the pool; data is nullptr when the pool is exhausted. At most 512 bytes.
ngx_str_t print(ngx_pool_t* pool, const char* format, ...) noexcept;

}  // namespace penstock
