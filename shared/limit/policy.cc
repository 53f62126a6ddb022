#include "shared/limit/policy.h"

#include <string>

namespace penstock::limit {

Policy make_policy(const GcraPolicy& gcra) noexcept {
  return {.algorithm = Algorithm::gcra,
          .limit = gcra.burst,
          .gcra = gcra,
          .mark = Mark(Kind::gcra, gcra.tolerance)};
}

Policy make_policy(const WindowPolicy& window) noexcept {
  const Algorithm algorithm = window.kind == WindowKind::fixed     ? Algorithm::fixed_window
                              : window.kind == WindowKind::sliding ? Algorithm::sliding_window
                                                                   : Algorithm::concurrency;
  const Mark mark = window.kind == WindowKind::fixed     ? Mark(Kind::fixed, window.limit)
                    : window.kind == WindowKind::sliding ? Mark(Kind::paired, window.limit)
                                                         : Mark(Kind::paired);
  return {.algorithm = algorithm, .limit = window.limit, .window = window, .mark = mark};
}

Result<Policy> make_sliding_log(uint64_t limit, int64_t length_ns) {
  constexpr int64_t kLongest = 31ll * 86'400 * 1'000'000'000;
  if (limit == 0) {
    return Error{"a limit of 0 admits nothing: use 1 or more, or deny access instead"};
  }
  if (limit > kMaxLog) {
    return Error{"a sliding log keeps each of at most " + std::to_string(kMaxLog) +
                 " units: use algorithm=sliding_window or token_bucket for more"};
  }
  if (length_ns <= 0 || length_ns > kLongest) {
    return Error{"a window must be longer than nothing and at most a month (31 days)"};
  }
  return Policy{.algorithm = Algorithm::sliding_log,
                .limit = limit,
                .length_ns = length_ns,
                .mark = Mark(Kind::gcra)};
}

}  // namespace penstock::limit
