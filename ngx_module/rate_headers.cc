#include "ngx_module/rate_headers.h"

#include <algorithm>

#include "ngx_module/request.h"
#include "ngx_module/text.h"

namespace penstock {
namespace {

// How long until there is a unit again, if there is none; else until the bucket is full.
int64_t effective_wait_ns(const Judged& j) noexcept {
  if (j.exceeded) {
    return j.decision->retry_after_ns;
  }
  if (j.decision->remaining > 0) {
    return j.decision->reset_ns;
  }
  const uint64_t all_but_one = j.rule->gcra.tolerance - j.rule->gcra.interval;
  return std::max<int64_t>(
      1, j.decision->reset_ns - static_cast<int64_t>(all_but_one / limit::kTicksPerNs));
}

// The limit that says most about what the caller may do next.
const Judged& tightest(std::span<const Judged> shown) noexcept {
  return *std::min_element(shown.begin(), shown.end(), [](const Judged& a, const Judged& b) {
    if (a.exceeded != b.exceeded) {
      return a.exceeded;
    }
    if (a.exceeded) {
      return a.decision->retry_after_ns > b.decision->retry_after_ns;
    }
    return a.decision->remaining < b.decision->remaining;
  });
}

bool push_policies(ngx_http_request_t* r, std::span<const Judged> shown) noexcept {
  if (shown.size() == 1) {
    return push_header(r, "RateLimit-Policy", shown[0].rule->policy) != nullptr;
  }
  size_t size = 0;
  for (const Judged& j : shown) {
    size += j.rule->policy.len + 2;
  }
  auto* memory = static_cast<u_char*>(ngx_pnalloc(r->pool, size));
  if (memory == nullptr) {
    return false;
  }
  Text text(reinterpret_cast<char*>(memory));
  for (const Judged& j : shown) {
    text.raw(&j == shown.data() ? "" : ", ").raw(view(j.rule->policy));
  }
  return push_header(r, "RateLimit-Policy",
                     {static_cast<size_t>(text.at() - reinterpret_cast<char*>(memory)), memory}) !=
         nullptr;
}

bool push_state(ngx_http_request_t* r, std::span<const Judged> shown) noexcept {
  constexpr size_t kPerLimit = 64 + 64;  // the name, and "";r=<20>;t=<20>, with room
  auto* memory = static_cast<u_char*>(ngx_pnalloc(r->pool, shown.size() * kPerLimit + 96));
  if (memory == nullptr) {
    return false;
  }
  Text text(reinterpret_cast<char*>(memory));
  const char* start = text.at();
  const auto piece = [&]() noexcept {
    const std::string_view s(start, static_cast<size_t>(text.at() - start));
    start = text.at();
    return str(s);
  };
  for (const Judged& j : shown) {
    const size_t comma = &j == shown.data() ? 2 : 0;
    text.raw(view(j.rule->label).substr(comma)).number(j.decision->remaining).raw(";t=");
    text.number(static_cast<uint64_t>(seconds_up(effective_wait_ns(j))));
  }
  const ngx_str_t state = piece();
  const Judged& least = tightest(shown);
  text.number(least.rule->gcra.burst);
  const ngx_str_t most = piece();
  text.number(least.decision->remaining);
  const ngx_str_t remaining = piece();
  text.duration(least.decision->reset_ns);
  const ngx_str_t reset = piece();
  return push_header(r, "RateLimit", state) != nullptr &&
         push_header(r, "x-ratelimit-limit-requests", most) != nullptr &&
         push_header(r, "x-ratelimit-remaining-requests", remaining) != nullptr &&
         push_header(r, "x-ratelimit-reset-requests", reset) != nullptr;
}

}  // namespace

bool push_rate_headers(ngx_http_request_t* r, const Tier* tier, std::span<const Judged> judged,
                       bool refused) noexcept {
  Judged chosen[kMaxCharges];
  size_t count = 0;
  for (const Judged& j : judged) {
    if (refused ? j.exceeded : j.of_tier == (tier != nullptr)) {
      chosen[count++] = j;
    }
  }
  if (count == 0) {
    return true;
  }
  const std::span<const Judged> shown(chosen, count);
  // Most often these are all the rules of the plan, whose list is ready.
  const bool whole_plan = tier != nullptr && !refused && count == tier->rules.size();
  return (whole_plan ? push_header(r, "RateLimit-Policy", tier->policies) != nullptr
                     : push_policies(r, shown)) &&
         push_state(r, shown);
}

}  // namespace penstock
