#include "ngx_module/request/telemetry.h"

#include <algorithm>

#include "ngx_module/request/telemetry_state.h"

namespace penstock {
namespace {

constexpr size_t kMostOffenders = 64;  // told at once

// The stripe that this process counts in, and whether it is the only one to do so. Nginx gives no
// two living processes of one master the same slot, those of an earlier cycle included.
unsigned stripe;
bool alone;

void add(const Tally& tally, uint64_t amount = 1) noexcept {
  if (alone) [[likely]] {
    const uint64_t before = __atomic_load_n(tally.word, __ATOMIC_RELAXED);
    __atomic_store_n(tally.word, before + amount, __ATOMIC_RELAXED);
  } else {
    __atomic_fetch_add(tally.word, amount, __ATOMIC_RELAXED);
  }
}

// The id under which a refusal's offender is noted names the limit: it is that of the series of its
// rejections, which tells it in one of its labels, and a reload keeps it.
std::string_view limit_of(const metrics::Registry& registry, uint32_t tag) noexcept {
  constexpr std::string_view kLabel = ",limit=\"";
  std::string_view text = registry.text_of(tag);
  const size_t at = text.find(kLabel);
  if (at == text.npos) {
    return {};
  }
  text.remove_prefix(at + kLabel.size());
  return text.substr(0, text.find('"'));
}

int64_t about_now_ns() noexcept {
  return static_cast<int64_t>(ngx_current_msec) * 1'000'000;  // Nginx reads CLOCK_MONOTONIC too
}

void note_offender(Telemetry& telemetry, uint64_t key, uint32_t tag) noexcept {
  static uint64_t salt = static_cast<uint64_t>(ngx_pid) << 32;
  telemetry.offenders.fade(about_now_ns());
  telemetry.offenders.note(key, tag, ++salt);
}

// As they are kept by minute.
metrics::Minutes::Counters requests_by_now(const Telemetry& telemetry) noexcept {
  metrics::Minutes::Counters now{};
  for (size_t tier = 0; tier <= telemetry.tiers; ++tier) {
    for (size_t i = 0; i < kOutcomes; ++i) {
      const uint64_t sum = telemetry.registry.sum(telemetry.requests[tier][i].id);
      const auto outcome = static_cast<Outcome>(i);
      now[0] += sum;
      now[1] += is_refused(outcome) && outcome != Outcome::kBusy ? sum : 0;
      now[2] += outcome == Outcome::kBusy ? sum : 0;
    }
  }
  return now;
}

uint64_t hash_of(std::string_view model) noexcept {
  return limit::siphash13_128(limit::Secret{}, model).lo;
}

}  // namespace

void start_counting(const MainConf& main) noexcept {
  const auto slot = static_cast<size_t>(ngx_process_slot);
  alone = slot < kStripes - 1;
  stripe = static_cast<unsigned>(alone ? slot : kStripes - 1);
  for (const Series& series : main.telemetry->series) {
    uint64_t* word = main.telemetry->registry.word(series.tally->id, stripe);
    series.tally->word = word == nullptr ? &nowhere : word;
  }
}

void count_request(const MainConf& main, const Tier* tier, Outcome outcome) noexcept {
  Telemetry& telemetry = *main.telemetry;
  if (telemetry.minutes.begins(about_now_ns())) [[unlikely]] {
    telemetry.minutes.write(about_now_ns(), requests_by_now(telemetry));
  }
  add(telemetry.requests[tier == nullptr ? telemetry.tiers : tier->index][index_of(outcome)]);
}

void count_limit(const MainConf& main, const Counter& counter, Outcome outcome,
                 uint64_t key) noexcept {
  const Tally& tally = counter.metrics->tallies[index_of(outcome)];
  add(tally);
  if (outcome == Outcome::kRejected || outcome == Outcome::kChallenged) {
    note_offender(*main.telemetry, key, tally.id);
  }
}

void count_passed(std::span<const ChargeResult> results) noexcept {
  for (const ChargeResult& j : results) {
    add(j.bound->counter->metrics->tallies[index_of(Outcome::kPassed)]);
  }
}

void count_challenge(const Counter& counter, ChallengeEvent event) noexcept {
  add(counter.metrics->challenged[static_cast<size_t>(event)]);
}

uint64_t challenges_passed(const MainConf& main, const Counter& counter) noexcept {
  const uint32_t id = counter.metrics->challenged[static_cast<size_t>(ChallengeEvent::kPassed)].id;
  return id == metrics::kNoSeries ? 0 : main.telemetry->registry.sum(id);
}

void count_cost(const MainConf& main, Unit unit, CostEvent event, uint64_t amount) noexcept {
  if (unit != Unit::kRequests) {
    add(main.telemetry->costs[static_cast<size_t>(unit)][static_cast<size_t>(event)], amount);
  }
}

void observe_decision(const MainConf& main, int64_t ns) noexcept {
  main.telemetry->decisions.observe(static_cast<uint64_t>(std::max(ns, int64_t{0})), stripe,
                                    kSampled);
}

Estimate estimate_of(const MainConf& main, std::string_view model) noexcept {
  return main.telemetry->estimates.of(hash_of(model));
}

void learn(const MainConf& main, std::string_view model, uint64_t prompt_bytes,
           uint64_t prompt_tokens, uint64_t completion_tokens, uint64_t gpu_ms) noexcept {
  main.telemetry->estimates.learn(hash_of(model),
                                  {prompt_bytes, prompt_tokens, completion_tokens, gpu_ms});
}

size_t worst_offenders(const MainConf& main, std::span<OffenderRow> rows) noexcept {
  Telemetry& telemetry = *main.telemetry;
  telemetry.offenders.fade(about_now_ns());
  metrics::Offender worst[kMostOffenders];
  const size_t count =
      telemetry.offenders.top(std::span(worst).first(std::min(rows.size(), kMostOffenders)));
  for (size_t i = 0; i < count; ++i) {
    rows[i] = {worst[i].key, limit_of(telemetry.registry, worst[i].tag), worst[i].count};
  }
  return count;
}

RecentRequests recent_requests(const MainConf& main) noexcept {
  const Telemetry& telemetry = *main.telemetry;
  if (telemetry.shm == nullptr) {
    return {};
  }
  const auto [ns, counted] = telemetry.minutes.recent(about_now_ns(), requests_by_now(telemetry));
  return {.seconds = static_cast<uint64_t>(ns / 1'000'000'000),
          .all = counted[0],
          .rejected = counted[1],
          .busy = counted[2]};
}

void write_counts(const MainConf& main, metrics::Writer& writer) noexcept {
  const Telemetry& telemetry = *main.telemetry;
  const metrics::Registry& registry = telemetry.registry;
  write_counters(writer, registry, kRequestsName,
                 "Requests that have ended, by the caller's plan and what became of them.");
  write_counters(writer, registry, kLimitsName,
                 "What each limit said of the requests it judged. A request that another limit "
                 "refused is not counted here.");
  write_counters(writer, registry, kChallengesName,
                 "Challenges of limits with action=challenge: issued; passed, by the answer that "
                 "was asked for; and failed, by any other.");
  writer.family(kCostName, metrics::Type::counter,
                "Model tokens and GPU seconds: reserved at admission, settled by what was used, "
                "and refunded of what was reserved.");
  for (const Unit unit : {Unit::kTokens, Unit::kGpu}) {
    for (const Tally& tally : telemetry.costs[static_cast<size_t>(unit)]) {
      const uint32_t id = tally.id;
      const uint64_t sum = registry.sum(id);
      if (!registry.live(id)) {
        continue;
      }
      if (unit == Unit::kGpu) {
        writer.sample(registry.text_of(id),
                      static_cast<double>(sum) / static_cast<double>(scale_of(unit)));
      } else {
        writer.sample(registry.text_of(id), sum);
      }
    }
  }
  writer.family(kDecisionName, metrics::Type::histogram,
                "Time to judge all limits of a request, measured on one in sixteen and weighted "
                "accordingly.");
  telemetry.decisions.write_samples(writer);
}

}  // namespace penstock
