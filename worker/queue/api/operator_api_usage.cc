// OperatorApi: the ledger, page by page.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "shared/http/query.h"
#include "worker/queue/api/operator_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {
namespace {

constexpr uint32_t kPage = 1000;
constexpr int64_t kSecondsPerHour = 3600;
// An hour is over when no end of it can be on its way to the ledger any more.
constexpr int64_t kSettlesMs = 60'000;
constexpr size_t kHashDigits = 16;

template <typename T>
bool number_of(std::string_view text, T& value, int base = 10) {
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value, base);
  return !text.empty() && error == std::errc() && at == end;
}

// The last 16 of the 32 digits that an owner is shown by, or these alone.
bool read_hash(std::string_view text, uint64_t& owner) {
  if (text.size() != kHashDigits && text.size() != 2 * kHashDigits) {
    return false;
  }
  return number_of(text.substr(text.size() - kHashDigits), owner, 16);
}

// "HOUR.OWNER.bytes of the queue's name.queue model"
std::string cursor_of(const UsageKey& key) {
  return fmt::format("{}.{:016x}.{}.{}{}", key.hour, key.owner, key.queue.size(), key.queue,
                     key.model);
}

bool read_cursor(std::string_view text, UsageKey& key) {
  std::string_view parts[3];
  for (std::string_view& part : parts) {
    const size_t dot = text.find('.');
    if (dot == text.npos) {
      return false;
    }
    part = text.substr(0, dot);
    text.remove_prefix(dot + 1);
  }
  size_t queue_bytes = 0;
  if (!number_of(parts[0], key.hour) || !read_hash(parts[1], key.owner) ||
      !number_of(parts[2], queue_bytes) || queue_bytes > text.size()) {
    return false;
  }
  key.queue = text.substr(0, queue_bytes);
  key.model = text.substr(queue_bytes);
  return true;
}

std::string row_json(const UsageRow& row) {
  JsonObject json;
  json.number("hour", row.key.hour * kSecondsPerHour)
      .text_or_null("owner_hash", row.key.owner == 0 ? "" : fmt::format("{:016x}", row.key.owner))
      .text("queue", row.key.queue)
      .text_or_null("model", row.key.model);
  for (size_t i = 0; i < kUsageCounts; ++i) {
    json.number(kUsageNames[i], row.counts[i]);
  }
  return json.done();
}

struct Bad {
  std::string_view param;
  std::string message;
};

// In whole hours: what began in one of them is in.
bool read_hour(std::string_view text, bool up, int64_t& hour) {
  int64_t seconds = 0;
  if (!number_of(text, seconds) || seconds < 0 || seconds > INT64_MAX / 2) {
    return false;
  }
  hour = (seconds + (up ? kSecondsPerHour - 1 : 0)) / kSecondsPerHour;
  return true;
}

}  // namespace

// An owner has a hash here, and another in each queue that hosts share.
std::vector<uint64_t> OperatorApi::hashes_of(std::string_view owner) {
  const Intake& intake = jobs_api_.intake();
  std::vector<uint64_t> hashes = {intake.hash_of(owner).lo};
  if (dispatcher_.shared() != nullptr) {
    for (const auto& queue : dispatcher_.shared()->queues()) {
      hashes.push_back(intake.hash_of(owner, queue.get()).lo);
    }
  }
  return hashes;
}

void OperatorApi::about_usage(Asker asker, const wire::Ask& ask) {
  const auto refuse = [&](std::string_view message, std::string_view param) {
    wire::append(asker.caller.out(), asker.id, invalid(message, param));
  };
  if (dispatcher_.store() == nullptr) {
    return wire::append(asker.caller.out(), asker.id,
                        wire::Failed{.status = 404,
                                     .code = "not_found",
                                     .message = "There is no ledger: penstock.yaml names no "
                                                "`state` to keep it in."});
  }
  const auto parsed = http::Query::parse(ask.query);
  if (!parsed) {
    return refuse(parsed.error().message, {});
  }
  UsageQuery query{.limit = kPage};
  const auto since = parsed->get("since");
  const auto until = parsed->get("until");
  if ((since && !read_hour(*since, false, query.since)) ||
      (until && !read_hour(*until, true, query.until))) {
    return refuse("since and until are seconds since 1970.", since ? "since" : "until");
  }
  const auto owner = parsed->get("owner");
  const auto hash = parsed->get("owner_hash");
  query.by_owner = owner || hash;
  if (owner) {
    query.owners = hashes_of(*owner);
  }
  if (hash && (owner || !read_hash(*hash, query.owners.emplace_back()))) {
    return refuse(
        "owner_hash is the 16 hexadecimal digits that the ledger shows an owner by, or the 32 that "
        "a job does, and stands alone: without owner.",
        "owner_hash");
  }
  query.model = parsed->get("model").value_or("");
  if (const auto after = parsed->get("after"); after && !read_cursor(*after, query.after)) {
    return refuse("after is what the page before names as next.", "after");
  }
  Waiter& waiter = dispatcher_.subscribers().add(asker.caller, asker.id, Waiter::Kind::kQuestion);
  Subscribers::ask(waiter);
  dispatcher_.store()->usage(query, [this, &waiter](const UsagePage& page) {
    if (!dispatcher_.subscribers().answered(waiter)) {
      return;
    }
    JsonList rows;
    for (const UsageRow& row : page.rows) {
      rows.add(row_json(row));
    }
    const int64_t open =
        std::min(dispatcher_.usage().written_before((dispatcher_.wall_ms() - kSettlesMs) / kHourMs),
                 dispatcher_.store()->unwritten_hour());
    const uint64_t ledger = limit::derive_secret(dispatcher_.store()->secret(), "the ledger").k0;
    reply(waiter, JsonObject()
                      .text("object", "list")
                      .text("ledger", fmt::format("{:016x}", ledger))
                      .number("open_since", open * kSecondsPerHour)
                      .raw("data", rows.done())
                      .boolean("has_more", page.more)
                      .text_or_null("next", page.more ? cursor_of(page.last) : "")
                      .done());
  });
}

}  // namespace penstock::queue
