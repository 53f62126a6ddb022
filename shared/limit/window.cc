#include "shared/limit/window.h"

#include <algorithm>
#include <string>

namespace penstock::limit {
namespace {

__extension__ using Wide = __int128;

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kNsPerDay = 86'400 * kNsPerSecond;

struct Layout {
  const char* word;
  int64_t length_ns;  // 0: the calendar says
  unsigned index_bits;
  unsigned count_bits;  // of one of a pair

  // A fixed window's one count leaves more room for the number: years, where it is a minute or
  // more.
  unsigned index_bits_of(WindowKind kind) const noexcept {
    return kind == WindowKind::fixed ? std::max(index_bits, 21u) : index_bits;
  }
  unsigned index_shift(WindowKind kind) const noexcept { return 61 - index_bits_of(kind); }
  uint64_t index_mask(WindowKind kind) const noexcept {
    return (uint64_t{1} << index_bits_of(kind)) - 1;
  }
  uint64_t most() const noexcept { return (uint64_t{1} << count_bits) - 1; }
  uint64_t most_fixed() const noexcept {
    return (uint64_t{1} << index_shift(WindowKind::fixed)) - 1;
  }
  // Windows by which a state may be ahead of a clock that was stepped back.
  uint64_t ahead_at_most() const noexcept {
    constexpr int64_t kHourNs = 3600 * kNsPerSecond;
    return length_ns == 0 || length_ns >= kHourNs ? 1 : static_cast<uint64_t>(kHourNs / length_ns);
  }
};

constexpr Layout kLayouts[] = {
    {"second", kNsPerSecond, 23, 19},       // wraps after 97 days
    {"minute", 60 * kNsPerSecond, 17, 22},  // 91 days
    {"hour", 3600 * kNsPerSecond, 13, 24},  // 341 days
    {"day", kNsPerDay, 9, 26},              // 512 days
    {"week", 7 * kNsPerDay, 7, 27},         // 2 years
    {"month", 0, 5, 28},                    // 32 months
    {"30 days", 30 * kNsPerDay, 5, 28},     // 2 years
    {"lease", kLeaseNs, 21, 20},            // 121 days
};

const Layout& layout_of(Span span) noexcept { return kLayouts[static_cast<unsigned>(span)]; }
Span span_of(uint64_t state) noexcept { return static_cast<Span>(state >> 61); }

struct Window {
  int64_t index = 0;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

int64_t floor_div(int64_t a, int64_t b) noexcept { return a / b - (a % b < 0 ? 1 : 0); }

// Days since 1970 of the first of a month, counted in months since 1970.
int64_t day_of_month(int64_t months) noexcept {
  const int64_t year = 1970 + floor_div(months, 12);
  const int64_t month = months - floor_div(months, 12) * 12 + 1;
  const int64_t y = month <= 2 ? year - 1 : year;  // years here begin in March
  const int64_t era = floor_div(y, 400);
  const int64_t year_of_era = y - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5;
  const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 719'468;
}

int64_t month_of_day(int64_t days) noexcept {
  int64_t months = floor_div(days * 400 * 12, 146'097);  // off by one month at most
  while (day_of_month(months + 1) <= days) {
    ++months;
  }
  while (day_of_month(months) > days) {
    --months;
  }
  return months;
}

// 1970 began on a Thursday; weeks begin on Monday (ISO 8601).
constexpr int64_t kWeekBegin = -3 * kNsPerDay;

Window window_at(Span span, int64_t index) noexcept {
  if (span == Span::month) {
    return {index, day_of_month(index) * kNsPerDay, day_of_month(index + 1) * kNsPerDay};
  }
  const int64_t length = layout_of(span).length_ns;
  const int64_t begin = index * length + (span == Span::week ? kWeekBegin : 0);
  return {index, begin, begin + length};
}

Window window_of(Span span, int64_t clock_ns) noexcept {
  if (span == Span::month) {
    return window_at(span, month_of_day(floor_div(clock_ns, kNsPerDay)));
  }
  const int64_t from = clock_ns - (span == Span::week ? kWeekBegin : 0);
  return window_at(span, floor_div(from, layout_of(span).length_ns));
}

// A state as seen from a window: which window counts, and what is counted in it and before it.
struct Reading {
  Window window;
  uint64_t before = 0;
  uint64_t in = 0;
};

enum class Age : uint8_t { present, last, gone };

// How old a state's window is, seen from `index`; `ahead` by how much it is later than that.
Age age_of(const Layout& layout, WindowKind kind, uint64_t state_index, int64_t index,
           uint64_t& ahead) noexcept {
  const uint64_t mask = layout.index_mask(kind);
  const uint64_t behind = (static_cast<uint64_t>(index) - state_index) & mask;
  ahead = 0;
  if (behind == 0) {
    return Age::present;
  }
  if (behind == 1) {
    return Age::last;
  }
  const uint64_t early = (state_index - static_cast<uint64_t>(index)) & mask;
  if (early <= std::min(layout.ahead_at_most(), mask / 2 - 1)) {
    ahead = early;
    return Age::present;
  }
  return Age::gone;
}

uint64_t index_in(uint64_t state, const Layout& layout, WindowKind kind) noexcept {
  return state >> layout.index_shift(kind) & layout.index_mask(kind);
}

int64_t clock_of(WindowKind kind, const Instant& now) noexcept {
  return kind == WindowKind::fixed ? now.wall_ns : now.steady_ns;
}

Reading read(WindowKind kind, Span span, uint64_t state, int64_t clock_ns) noexcept {
  const Layout& layout = layout_of(span);
  Reading reading{window_of(span, clock_ns)};
  if (state == 0 || span_of(state) != span) {
    return reading;  // none yet, or of a policy with another period
  }
  uint64_t ahead = 0;
  const Age age = age_of(layout, kind, index_in(state, layout, kind), reading.window.index, ahead);
  if (ahead != 0) {
    reading.window = window_at(span, reading.window.index + static_cast<int64_t>(ahead));
  }
  if (kind == WindowKind::fixed) {
    reading.in = age == Age::present ? state & layout.most_fixed() : 0;
    return reading;
  }
  const uint64_t in = state & layout.most();
  if (age == Age::present) {
    reading.in = in;
    reading.before = state >> layout.count_bits & layout.most();
  } else if (age == Age::last) {
    reading.before = in;
  }
  return reading;
}

uint64_t pack(WindowKind kind, Span span, const Reading& reading) noexcept {
  const Layout& layout = layout_of(span);
  const uint64_t index = static_cast<uint64_t>(reading.window.index) & layout.index_mask(kind);
  uint64_t state = static_cast<uint64_t>(span) << 61 | index << layout.index_shift(kind);
  if (kind == WindowKind::fixed) {
    return state | std::min(reading.in, layout.most_fixed());
  }
  return state | std::min(reading.before, layout.most()) << layout.count_bits |
         std::min(reading.in, layout.most());
}

Decision decide_fixed(const WindowPolicy& policy, Reading reading, int64_t now,
                      uint64_t cost) noexcept {
  Decision decision;
  const uint64_t room = reading.in < policy.limit ? policy.limit - reading.in : 0;
  const int64_t left = reading.window.end_ns - now;
  decision.admit = cost <= room;
  decision.remaining = decision.admit ? room - cost : room;
  decision.reset_ns = reading.in + (decision.admit ? cost : 0) != 0 ? left : 0;
  if (!decision.admit) {
    decision.retry_after_ns = cost > policy.limit ? kNever : left;
  }
  return decision;
}

// The wait until `cost` more fit beside what was counted. Within this window the part of the one
// before shrinks; from its end on the same goes for what is counted in it.
int64_t sliding_wait(const WindowPolicy& policy, const Reading& reading, int64_t now,
                     uint64_t cost) noexcept {
  const int64_t length = reading.window.end_ns - reading.window.begin_ns;
  const bool in_this = reading.in + cost <= policy.limit;
  const uint64_t fading = in_this ? reading.before : reading.in;
  const uint64_t free = policy.limit - cost - (in_this ? reading.in : 0);
  const auto kept = static_cast<int64_t>(
      std::min(Wide{length}, fading == 0 ? Wide{length} : Wide{free} * length / fading));
  return (in_this ? reading.window.begin_ns : reading.window.end_ns) + length - kept - now;
}

Decision decide_sliding(const WindowPolicy& policy, const Reading& reading, int64_t now,
                        uint64_t cost) noexcept {
  Decision decision;
  const int64_t length = reading.window.end_ns - reading.window.begin_ns;
  const int64_t covered = reading.window.end_ns - std::max(now, reading.window.begin_ns);
  // In units x ns, so that nothing is rounded.
  const Wide used = Wide{reading.before} * covered + Wide{reading.in} * length;
  const Wide room = Wide{policy.limit} * length - used;
  decision.admit = cost == 0 || Wide{cost} * length <= room;
  const Wide left = decision.admit ? room - Wide{cost} * length : room;
  decision.remaining = left > 0 ? static_cast<uint64_t>(left / length) : 0;
  const uint64_t in = reading.in + (decision.admit ? cost : 0);
  if (in != 0) {
    decision.reset_ns = reading.window.end_ns + length - now;
  } else if (reading.before != 0) {
    decision.reset_ns = reading.window.end_ns - now;
  }
  if (!decision.admit) {
    decision.retry_after_ns =
        cost > policy.limit ? kNever : sliding_wait(policy, reading, now, cost);
  }
  return decision;
}

Decision decide_lease(const WindowPolicy& policy, const Reading& reading, int64_t now,
                      uint64_t cost) noexcept {
  Decision decision;
  const uint64_t held = reading.before + reading.in;
  const uint64_t room = held < policy.limit ? policy.limit - held : 0;
  decision.admit = cost <= room;
  decision.remaining = decision.admit ? room - cost : room;
  const int64_t soon = reading.window.end_ns - now;
  const int64_t later = soon + kLeaseNs;
  if (reading.in + (decision.admit ? cost : 0) != 0) {
    decision.reset_ns = later;
  } else if (reading.before != 0) {
    decision.reset_ns = soon;
  }
  if (!decision.admit) {
    const bool soon_enough = reading.in + cost <= policy.limit;
    decision.retry_after_ns = cost > policy.limit ? kNever : (soon_enough ? soon : later);
  }
  return decision;
}

Result<WindowPolicy> make(WindowKind kind, uint64_t limit, Span span) {
  const Layout& layout = layout_of(span);
  const uint64_t most = kind == WindowKind::fixed
                            ? std::min(layout.most_fixed(), uint64_t{1'000'000'000'000})
                            : layout.most();
  if (limit == 0) {
    return Error{"a limit of 0 admits nothing: use 1 or more, or deny access instead"};
  }
  if (limit > most) {
    return Error{
        "at most " + std::to_string(most) + " can be counted " +
        (kind == WindowKind::lease ? "at once" : std::string("in a window of one ") + layout.word) +
        (kind == WindowKind::sliding ? ": use that, or algorithm=token_bucket" : "")};
  }
  return WindowPolicy{kind, span, limit};
}

}  // namespace

Result<WindowPolicy> make_fixed_window(uint64_t limit, Span span) {
  return make(WindowKind::fixed, limit, span);
}

Result<WindowPolicy> make_sliding_window(uint64_t limit, Span span) {
  return make(WindowKind::sliding, limit, span == Span::month ? Span::days30 : span);
}

Result<WindowPolicy> make_concurrency(uint64_t limit) {
  return make(WindowKind::lease, limit, Span::lease);
}

Decision decide(const WindowPolicy& policy, uint64_t state, const Instant& now,
                uint64_t cost) noexcept {
  const int64_t clock = clock_of(policy.kind, now);
  Reading reading = read(policy.kind, policy.span, state, clock);
  Decision decision = policy.kind == WindowKind::fixed ? decide_fixed(policy, reading, clock, cost)
                      : policy.kind == WindowKind::lease
                          ? decide_lease(policy, reading, clock, cost)
                          : decide_sliding(policy, reading, clock, cost);
  decision.next_state = state;
  if (decision.admit && cost != 0) {
    reading.in += cost;
    decision.next_state = pack(policy.kind, policy.span, reading);
  }
  return decision;
}

uint64_t refund(const WindowPolicy& policy, uint64_t state, uint64_t admitted_state,
                uint64_t cost) noexcept {
  const Layout& layout = layout_of(policy.span);
  if (span_of(state) != policy.span || span_of(admitted_state) != policy.span) {
    return state;
  }
  const uint64_t later =
      (index_in(state, layout, policy.kind) - index_in(admitted_state, layout, policy.kind)) &
      layout.index_mask(policy.kind);
  if (policy.kind == WindowKind::fixed) {
    return later == 0 ? state - std::min(cost, state & layout.most_fixed()) : state;
  }
  const uint64_t in = state & layout.most();
  const uint64_t before = state >> layout.count_bits & layout.most();
  if (later == 0) {
    return state - std::min(cost, in);
  }
  return later == 1 ? state - (std::min(cost, before) << layout.count_bits) : state;
}

uint64_t overdraw(const WindowPolicy& policy, uint64_t state, uint64_t cost,
                  const Instant& now) noexcept {
  Reading reading = read(policy.kind, policy.span, state, clock_of(policy.kind, now));
  reading.in += std::min(cost, layout_of(policy.span).most_fixed());
  return pack(policy.kind, policy.span, reading);
}

uint64_t renew(const WindowPolicy& policy, uint64_t state, uint64_t held_state, uint64_t cost,
               const Instant& now) noexcept {
  const Layout& layout = layout_of(policy.span);
  Reading reading = read(policy.kind, policy.span, state, clock_of(policy.kind, now));
  const uint64_t age =
      (static_cast<uint64_t>(reading.window.index) - index_in(held_state, layout, policy.kind)) &
      layout.index_mask(policy.kind);
  if (age == 0 && span_of(state) == policy.span) {
    return pack(policy.kind, policy.span, reading);
  }
  if (age == 1) {
    reading.before -= std::min(cost, reading.before);
  }
  reading.in += cost;
  return pack(policy.kind, policy.span, reading);
}

uint64_t used(const WindowPolicy& policy, uint64_t state, const Instant& now) noexcept {
  const Reading reading = read(policy.kind, policy.span, state, clock_of(policy.kind, now));
  return reading.before + reading.in;
}

void window_begins(Span span, int64_t wall_ns, int64_t (&begins_ns)[4]) noexcept {
  const int64_t index = window_of(span, wall_ns).index;
  for (int64_t i = 0; i < 4; ++i) {
    begins_ns[i] = window_at(span, index - 1 + i).begin_ns;
  }
}

int64_t span_ns(Span span) noexcept {
  return span == Span::month ? 31 * kNsPerDay : layout_of(span).length_ns;
}

uint64_t fixed_window_used(uint64_t state, const Instant& now) noexcept {
  return read(WindowKind::fixed, span_of(state), state, now.wall_ns).in;
}

uint64_t paired_window_used(uint64_t state, const Instant& now) noexcept {
  const Reading reading = read(WindowKind::sliding, span_of(state), state, now.steady_ns);
  return reading.in + reading.before;
}

}  // namespace penstock::limit
