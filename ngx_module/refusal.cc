#include "ngx_module/refusal.h"

#include <algorithm>
#include <charconv>

#include "shared/http/problem.h"

namespace penstock {
namespace {

// Stands for the seconds while the body is rendered: longer than any name has a reason to be of
// digits alone.
constexpr int64_t kMark = 8'888'888'888'888'888'888;
constexpr std::string_view kMarkText = "8888888888888888888";
constexpr size_t kMaxDigits = 20;

class Appender {
 public:
  explicit Appender(char* at) noexcept : at_(at) {}
  Appender& text(std::string_view s) noexcept {
    ngx_memcpy(at_, s.data(), s.size());
    at_ += s.size();
    return *this;
  }
  Appender& number(int64_t n) noexcept {
    at_ = std::to_chars(at_, at_ + kMaxDigits, n).ptr;
    return *this;
  }
  char* at() const noexcept { return at_; }

 private:
  char* at_;
};

}  // namespace

std::string_view say_when(std::string_view sentence, int64_t seconds, char* out) noexcept {
  Appender to(out);
  to.text(sentence).text(" Try again in ").number(seconds).text(" s.");
  return {out, static_cast<size_t>(to.at() - out)};
}

bool Refusal::prepare(ngx_pool_t* pool, std::string_view name, std::string_view sentence) noexcept {
  auto* quoted = static_cast<char*>(ngx_pnalloc(pool, name.size() + 2));
  auto* detail = static_cast<char*>(ngx_pnalloc(pool, sentence.size() + 48));
  if (quoted == nullptr || detail == nullptr) {
    return false;
  }
  Appender(quoted).text("\"").text(name).text("\"");
  const http::Problem problem{.status = 429,
                              .detail = say_when(sentence, kMark, detail),
                              .code = "rate_limit_exceeded",
                              .retry_after_s = kMark,
                              .violated_policies = {quoted, name.size() + 2}};
  const size_t capacity = http::bound(problem);
  auto* memory = static_cast<char*>(ngx_pnalloc(pool, capacity));
  if (memory == nullptr) {
    return false;
  }
  std::string_view rest(memory, http::render(problem, memory, capacity));
  for (size_t i = 0; i < kPieces; ++i) {
    const size_t mark = i + 1 < kPieces ? rest.find(kMarkText) : rest.size();
    if (mark == std::string_view::npos) {
      return false;
    }
    pieces[i] = str(rest.substr(0, mark));
    rest.remove_prefix(std::min(rest.size(), mark + kMarkText.size()));
  }
  return true;
}

ngx_str_t Refusal::with(ngx_pool_t* pool, int64_t seconds) const noexcept {
  size_t size = (kPieces - 1) * kMaxDigits;
  for (const ngx_str_t& piece : pieces) {
    size += piece.len;
  }
  auto* memory = static_cast<char*>(ngx_pnalloc(pool, size));
  if (memory == nullptr) {
    return {0, nullptr};
  }
  Appender to(memory);
  to.text(view(pieces[0]));
  for (size_t i = 1; i < kPieces; ++i) {
    to.number(seconds).text(view(pieces[i]));
  }
  return str({memory, static_cast<size_t>(to.at() - memory)});
}

}  // namespace penstock
