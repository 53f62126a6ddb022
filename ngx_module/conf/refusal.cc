#include "ngx_module/conf/refusal.h"

#include <algorithm>

#include "ngx_module/conf/text.h"
#include "shared/http/problem.h"

namespace penstock {
namespace {

// Stands for the seconds while the body is rendered: longer than any name has a reason to be of
// digits alone.
constexpr int64_t kMark = 8'888'888'888'888'888'888;
constexpr std::string_view kMarkText = "8888888888888888888";

}  // namespace

std::string_view say_when(std::string_view sentence, int64_t seconds, char* out) noexcept {
  Text to(out);
  to.raw(sentence).raw(" Try again in ").number(static_cast<uint64_t>(seconds)).raw(" s.");
  return {out, static_cast<size_t>(to.at() - out)};
}

bool Refusal::prepare(ngx_pool_t* pool, std::string_view name, std::string_view sentence,
                      std::string_view code, std::string_view docs) noexcept {
  auto* quoted = static_cast<char*>(ngx_pnalloc(pool, name.size() + 2));
  auto* detail = static_cast<char*>(ngx_pnalloc(pool, sentence.size() + 48));
  if (quoted == nullptr || detail == nullptr) {
    return false;
  }
  Text(quoted).raw("\"").raw(name).raw("\"");
  const http::Problem problem{.status = 429,
                              .detail = say_when(sentence, kMark, detail),
                              .code = code,
                              .retry_after_s = kMark,
                              .violated_policies = {quoted, name.size() + 2},
                              .docs = docs};
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
  size_t size = (kPieces - 1) * Text::kMaxDigits;
  for (const ngx_str_t& piece : pieces) {
    size += piece.len;
  }
  auto* memory = static_cast<char*>(ngx_pnalloc(pool, size));
  if (memory == nullptr) {
    return {0, nullptr};
  }
  Text to(memory);
  to.raw(view(pieces[0]));
  for (size_t i = 1; i < kPieces; ++i) {
    to.number(static_cast<uint64_t>(seconds)).raw(view(pieces[i]));
  }
  return str({memory, static_cast<size_t>(to.at() - memory)});
}

}  // namespace penstock
