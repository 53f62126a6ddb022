#include "worker/queue/shared_jobs/roster.h"

#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "shared/wire/message_codec.h"

namespace penstock::queue {
namespace {

// The tags are the roster's, not the wire's; which of both a frame is, its id says.
constexpr uint64_t kHost = 1;
constexpr uint64_t kModel = 2;
constexpr size_t kMostNameBytes = 100;
constexpr double kParts = 1e6;
constexpr double kMost = 1e15;  // of what others say

struct SaidHost {
  static constexpr wire::FrameType kType = wire::FrameType::kOver;
  std::string_view name, version, lease;
  int64_t since_ms = 0;
  uint64_t draining = 0, left = 0, unsent = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, name), v(2, version), v(3, lease), v(4, since_ms), v(5, draining), v(6, left);
    v(7, unsent);
  }
};
struct SaidModel {
  static constexpr wire::FrameType kType = wire::FrameType::kOver;
  std::string_view name, written;
  uint64_t slots = 0, running = 0, workers = 0, ready = 0, mean_us = 0, spread_ppm = 0, seen = 0;
  uint64_t unattended = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, name), v(2, written), v(3, slots), v(4, running), v(5, workers), v(6, ready);
    v(7, mean_us), v(8, spread_ppm), v(9, seen), v(10, unattended);
  }
};

uint64_t whole(double value) { return static_cast<uint64_t>(std::clamp(value, 0.0, kMost)); }
double part(uint64_t value) { return std::min(static_cast<double>(value), kMost); }
uint32_t count(uint64_t value) {
  return static_cast<uint32_t>(std::min<uint64_t>(value, 1U << 20));
}

HostSays::Model model_of(const SaidModel& said) {
  return {.name = std::string(said.name),
          .written = std::string(said.written),
          .slots = count(said.slots),
          .running = count(said.running),
          .workers = count(said.workers),
          .ready = count(said.ready),
          .attended = said.unattended == 0,
          .mean_ns = part(said.mean_us) * kNsPerUs,
          .spread = part(said.spread_ppm) / kParts,
          .seen = part(said.seen)};
}

std::string new_secret() {
  limit::Secret secret;
  if (::getrandom(&secret, sizeof secret, 0) != sizeof secret) {
    std::abort();  // as JobIdMaker: a kernel that has booted has some
  }
  return {reinterpret_cast<const char*>(&secret), sizeof secret};
}

}  // namespace

std::string encode(const HostSays& says, size_t most_bytes) {
  std::string text;
  wire::append(text, kHost,
               SaidHost{.name = std::string_view(says.name).substr(0, kMostNameBytes),
                        .version = std::string_view(says.version).substr(0, kMostNameBytes),
                        .lease = says.lease,
                        .since_ms = says.since_ms,
                        .draining = says.draining ? 1U : 0U,
                        .left = says.left ? 1U : 0U,
                        .unsent = says.unsent});
  for (const HostSays::Model& model : says.models) {
    const size_t before = text.size();
    wire::append(text, kModel,
                 SaidModel{.name = model.name,
                           .written = model.written,
                           .slots = model.slots,
                           .running = model.running,
                           .workers = model.workers,
                           .ready = model.ready,
                           .mean_us = whole(model.mean_ns / kNsPerUs),
                           .spread_ppm = whole(model.spread * kParts),
                           .seen = whole(model.seen),
                           .unattended = model.attended ? 0U : 1U});
    if (text.size() > most_bytes) {
      text.resize(before);
    }
  }
  return text;
}

std::optional<HostSays> decode_host(std::string_view bytes) {
  std::optional<HostSays> says;
  while (!bytes.empty()) {
    const wire::Decoded decoded = wire::decode(bytes, {});
    if (decoded.kind != wire::Decoded::kFrame) {
      return says;
    }
    bytes.remove_prefix(decoded.consumed);
    const wire::Frame& frame = decoded.frame;
    SaidHost host;
    SaidModel model;
    if (frame.header.type != SaidHost::kType) {
      continue;
    }
    if (frame.header.id == kHost && !says && wire::parse(frame.payload, host) == nullptr) {
      says = HostSays{.name = std::string(host.name),
                      .version = std::string(host.version),
                      .lease = std::string(host.lease),
                      .since_ms = host.since_ms,
                      .draining = host.draining != 0,
                      .left = host.left != 0,
                      .unsent = host.unsent,
                      .models = {}};
    } else if (frame.header.id == kModel && says && wire::parse(frame.payload, model) == nullptr) {
      says->models.push_back(model_of(model));
    }
  }
  return says;
}

void Roster::tell(const std::string& channel) {
  const std::string number = std::to_string(++ticks_);
  if (proposed_.empty()) {
    proposed_ = user_.kept_secret();
    proposed_ = proposed_.empty() ? new_secret() : proposed_;
  }
  if (channel.empty()) {
    tick_ns_ = 0;
  } else if (tick_ns_ == 0) {
    tick_ns_ = monotonic_ns();
    tick_ = ticks_;
  }
  order_.tell({.host = self_,
               .text = encode(user_.says(), kMostSaysBytes),
               .lasts_us = kSaysNs / kNsPerUs,
               .secret = proposed_,
               .back = channel.empty() ? std::string() : "tick " + number,
               .to = channel},
              [this, alive = alive_](SharedOrder::Answer<SharedOrder::Roster>& answer) {
                if (*alive && answer) {
                  heard(answer.value);
                }
              });
}

void Roster::ticked(std::string_view number) {
  uint64_t which = 0;
  std::from_chars(number.data(), number.data() + number.size(), which);
  if (tick_ns_ != 0 && which >= tick_) {
    lag_ns_ = monotonic_ns() - std::exchange(tick_ns_, 0);
  }
}

int64_t Roster::lag_ns(int64_t now_ns) const {
  return std::max(lag_ns_, tick_ns_ == 0 ? 0 : now_ns - tick_ns_);
}

void Roster::leave() {
  if (told_ns_ == 0) {
    return;
  }
  HostSays says = user_.says();
  says.left = true;
  order_.tell(
      {.host = self_, .text = encode(says, kMostSaysBytes), .lasts_us = 0, .secret = proposed_},
      [](const SharedOrder::Answer<SharedOrder::Roster>&) {});
}

void Roster::heard(SharedOrder::Roster& roster) {
  heard_ = std::move(roster);
  told_ns_ = monotonic_ns();
  if (limit::Secret secret; heard_.secret.size() == sizeof secret) {
    std::memcpy(&secret, heard_.secret.data(), sizeof secret);
    secret_ = secret;
    proposed_ = heard_.secret;
    user_.keep_secret(proposed_);
  }
  hear_hosts();
  hear_models();
  user_.on_roster();
}

// Of one that is gone Redis keeps the beginning: who has heard the rest knows it still.
void Roster::hear_hosts() {
  std::vector<Host> before = std::move(hosts_);
  before.insert(before.end(), std::make_move_iterator(gone_.begin()),
                std::make_move_iterator(gone_.end()));
  hosts_.clear();
  gone_.clear();
  for (const SharedOrder::Roster::Said& said : heard_.said) {
    std::optional<HostSays> says = decode_host(said.text);
    if (!says) {
      continue;  // of a version that is not understood
    }
    const bool lives = said.holds_us >= 0 && !says->left;
    const int64_t lasts_ns = says->left ? 0 : kSaysNs;
    const int64_t ago_ns = std::max<int64_t>(lasts_ns - said.holds_us * kNsPerUs, 0);
    const auto same = std::find_if(before.begin(), before.end(), [&](const Host& host) {
      return host.says.name == says->name && host.says.since_ms == says->since_ms;
    });
    if (!lives && same != before.end() && same->says.models.size() > says->models.size()) {
      says->models = std::move(same->says.models);
    }
    (lives ? hosts_ : gone_).push_back({std::move(*says), ago_ns});
  }
}

void Roster::hear_models() {
  models_.clear();
  models_away_.clear();
  const auto has = [](const std::vector<HostSays::Model>& models, const HostSays::Model& model) {
    return std::any_of(models.begin(), models.end(), [&](const HostSays::Model& each) {
      return each.name == model.name && each.written == model.written;
    });
  };
  for (const Host& host : hosts_) {
    for (const HostSays::Model& model : host.says.models) {
      if (!has(models_, model)) {
        models_.push_back(model);
      }
    }
  }
  for (const Host& host : gone_) {
    const bool is_back = std::any_of(hosts_.begin(), hosts_.end(), [&](const Host& other) {
      return other.says.name == host.says.name && other.says.since_ms > host.says.since_ms;
    });
    for (const HostSays::Model& model : host.says.models) {
      if (!is_back && !has(models_, model) && !has(models_away_, model)) {
        models_away_.push_back(model);
      }
    }
  }
}

const std::string* Roster::find_model(std::string_view asked) const {
  static const std::string kAny;
  if (asked.empty()) {
    return models_.empty() && models_away_.empty() ? nullptr : &kAny;
  }
  for (const auto* const models : {&models_, &models_away_}) {
    for (const HostSays::Model& model : *models) {
      if (model.name == asked || (!model.written.empty() && model.written == asked)) {
        return &model.name;
      }
    }
  }
  return nullptr;
}

// Slots that do c jobs in the mean time m do c / m together. Of hosts that have not seen any yet it
// is believed that they are as the others.
AllHosts Roster::workers(std::string_view model) const {
  AllHosts all{.shared = true, .hosts = count(hosts_.size())};
  double measured = 0;
  double rate = 0;
  for (const Host& host : hosts_) {
    for (const HostSays::Model& each : host.says.models) {
      if (!model.empty() && each.name != model) {
        continue;
      }
      all.slots += each.slots;
      all.running += each.running;
      all.workers += each.workers;
      all.ready += each.ready;
      all.attending += each.attended ? 1 : 0;
      if (each.seen > 0 && each.slots > 0 && each.mean_ns > 0) {
        measured += each.slots;
        rate += each.slots / each.mean_ns;
        all.spread += each.slots * each.spread;
        all.seen += each.seen;
      }
    }
  }
  for (const SharedOrder::Roster::Lane& lane : heard_.lanes) {
    all.in_line +=
        model.empty() || lane.model.empty() || lane.model == model ? count(lane.jobs) : 0;
  }
  if (rate > 0) {
    all.mean_ns = measured / rate;
    all.spread /= measured;
  }
  return all;
}

uint64_t Roster::in_line() const {
  uint64_t jobs = 0;
  for (const SharedOrder::Roster::Lane& lane : heard_.lanes) {
    jobs += lane.jobs;
  }
  return jobs;
}

uint64_t Roster::running() const {
  uint64_t jobs = 0;
  for (const SharedOrder::Roster::Lease& lease : heard_.leases) {
    jobs += lease.running;
  }
  return jobs;
}

int64_t Roster::oldest_ns() const {
  int64_t oldest_us = 0;
  for (const SharedOrder::Roster::Lane& lane : heard_.lanes) {
    oldest_us = std::max(oldest_us, lane.oldest_us);
  }
  return oldest_us * kNsPerUs;
}

}  // namespace penstock::queue
