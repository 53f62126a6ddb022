// Any payload, and any pass: what is read of a solution has one spelling only, and nobody passes
// without a signature of ours.
#include <openssl/evp.h>

#include <cstdlib>
#include <string>

#include "shared/challenge/solution.h"

using namespace penstock::challenge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kNow = 1'800'000'000;
  static const Keys keys = make_keys("of nobody's challenges");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (read_pass(keys, text, kNow) ||
      read_solution(text).has_value() != read_solution(text).has_value()) {
    std::abort();
  }
  std::string payload((size + 2) / 3 * 4 + 1, '\0');
  payload.resize(static_cast<size_t>(EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(payload.data()), data, static_cast<int>(size))));
  const auto solution = read_solution(payload);
  if (!solution) {
    return 0;
  }
  if (is_ours(keys, *solution, solution->holder(), solution->expires_s())) {
    std::abort();
  }
  // The text that is signed is found again in what came, but for spaces and the order of members.
  char written[kMostParametersText];
  if (solution->format == Format::kSha256) {
    const char* const end = write_salt(solution->salt, written);
    if (text.find(std::string_view(written, static_cast<size_t>(end - written))) ==
        std::string_view::npos) {
      std::abort();
    }
  } else {
    const char* const end = write_parameters(solution->parameters, written);
    if (end > written + sizeof written) {
      std::abort();
    }
  }
  return 0;
}
