#include "worker/engines/process/failures.h"

#include <algorithm>

#include "shared/base/utf8.h"

namespace penstock::process {
namespace {

constexpr size_t kMostMessageBytes = 1024;

struct Known {
  std::string_view code;
  int status;
};
constexpr Known kKnown[] = {
    {"invalid_request", 400}, {"forbidden", 403}, {"not_found", 404}, {"too_large", 413}};

bool is_code(std::string_view code) {
  constexpr size_t kMostCodeBytes = 64;
  return !code.empty() && code.size() <= kMostCodeBytes &&
         std::all_of(code.begin(), code.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
         });
}

std::string bounded(std::string_view text) {
  const std::string_view front = text.substr(0, kMostMessageBytes);
  return std::string(front.substr(0, utf8_complete_prefix(front)));
}

}  // namespace

Failure refusal(std::string_view code, std::string_view message, std::string_view param,
                bool retryable) {
  Failure failure{
      .status = 502,
      .code = is_code(code) ? std::string(code) : "engine_failed",
      .message = message.empty() ? "The program failed, and did not say why." : bounded(message),
      .param = bounded(param),
      .retryable = retryable};
  for (const Known& known : kKnown) {
    if (known.code == code) {
      failure.status = known.status;
    }
  }
  return failure;
}

Failure broken_rule(std::string message) {
  return {.status = 502, .code = "engine_failed", .message = std::move(message)};
}

Failure lost_attempt(std::string message) {
  return {.status = 502, .code = "engine_failed", .message = std::move(message), .retryable = true};
}

Failure not_now() {
  return {.status = 503,
          .code = "busy",
          .message = "The program that runs this is being started again.",
          .retryable = true,
          .returned = true};
}

}  // namespace penstock::process
