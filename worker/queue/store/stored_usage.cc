#include "worker/queue/store/stored_usage.h"

#include <algorithm>
#include <cstring>

#include "shared/base/clock.h"
#include "worker/queue/store/job_row.h"

namespace penstock::queue {
namespace {

// A page looks at no more rows than this, whoever's they are.
constexpr uint32_t kMostLooked = 5000;
constexpr int64_t kUncounted = INT64_MAX / 2;

// ", completed" and so on, each in `before` and `behind`.
std::string columns(std::string_view before, std::string_view behind) {
  std::string text;
  for (const std::string_view name : kUsageNames) {
    text.append(text.empty() ? "" : ", ").append(before.empty() ? name : before).append(behind);
  }
  return text;
}

std::string additions() {
  std::string text;
  for (const std::string_view name : kUsageNames) {
    text.append(text.empty() ? "" : ", ").append(name).append("=").append(name).append("+?");
  }
  return text;
}

std::string_view as_bytes(const uint64_t& owner) {
  return {reinterpret_cast<const char*>(&owner), sizeof owner};
}

uint64_t owner_in(std::string_view bytes) {
  uint64_t owner = 0;
  std::memcpy(&owner, bytes.data(), std::min(bytes.size(), sizeof owner));
  return owner;
}

}  // namespace

int64_t usage_of_tokens(uint64_t tokens) {
  return std::min(static_cast<int64_t>(std::min(tokens, uint64_t{INT64_MAX})), kMostUsage);
}

int64_t usage_of_device(uint64_t device_ns) {
  const uint64_t ms = device_ns / kNsPerMs + (device_ns % kNsPerMs != 0 ? 1 : 0);
  return std::min(static_cast<int64_t>(ms), kMostUsage);
}

UsageCounts usage_of(const JobEnd& end, bool paid) {
  UsageCounts counts;
  counts[end.status == JobStatus::kCompleted   ? kCompletedJobs
         : end.status == JobStatus::kCancelled ? kCancelledJobs
         : end.status == JobStatus::kExpired   ? kExpiredJobs
                                               : kFailedJobs] = 1;
  if (!paid && (end.status == JobStatus::kCompleted || end.status == JobStatus::kCancelled)) {
    counts[kRequests] = 1;
    counts[kPromptTokens] = usage_of_tokens(end.prompt_tokens);
    counts[kCompletionTokens] = usage_of_tokens(end.completion_tokens);
    counts[kGpuMs] = usage_of_device(end.device_ns);
  }
  return counts;
}

StoredUsage::StoredUsage(Database& database)
    : database_(database),
      update_(database, "UPDATE usage SET " + additions() +
                            " WHERE hour=? AND owner=? AND queue=? AND model=?"),
      insert_(database, "INSERT INTO usage(" + columns("", "") + ", hour, owner, queue, model)" +
                            " VALUES(" + columns("?", "") + ", ?, ?, ?, ?)"),
      read_(database, "SELECT hour, owner, queue, model, " + columns("", "") +
                          " FROM usage WHERE (hour, owner, queue, model) > (?, ?, ?, ?)"
                          " AND hour < ? ORDER BY hour, owner, queue, model LIMIT ?"),
      count_(database, "SELECT count(*) FROM usage"),
      oldest_(database, "SELECT coalesce(min(hour), 0) FROM usage"),
      erase_(database, "DELETE FROM usage WHERE hour=?"),
      set_mark_(database, "UPDATE usage_mark SET mark=?"),
      mark_(database, "SELECT mark FROM usage_mark"),
      rows_(count_.with().only_number()) {
  shown_rows_ = rows_;
}

bool StoredUsage::add(const UsageRow& row) {
  const auto bind = [&row](Statement& statement) {
    statement.with();
    for (const int64_t count : row.counts) {
      statement.and_with(count);
    }
    statement.and_with(row.key.hour, as_bytes(row.key.owner), row.key.queue, row.key.model);
    return statement.run();
  };
  if (!bind(update_)) {
    return false;
  }
  if (database_.changes() > 0) {
    return true;
  }
  ++rows_;
  ++shown_rows_;
  return bind(insert_);
}

bool StoredUsage::add(const std::vector<UsageRow>& rows, uint64_t mark) {
  return std::all_of(rows.begin(), rows.end(), [this](const UsageRow& row) { return add(row); }) &&
         set_mark_.with(mark).run();
}

bool StoredUsage::write_ends() {
  return std::all_of(ends_.begin(), ends_.end(),
                     [this](const auto& each) {
                       return add({each.first, each.second});
                     }) &&
         (ends_.clear(), true);
}

bool StoredUsage::read(const UsageQuery& query, UsagePage& page) {
  if (!write_ends()) {
    return false;
  }
  // Nothing lies before the first owner of an hour.
  const bool first = query.after.hour < query.since;
  read_.with();
  first ? read_.and_with(query.since, std::string_view(), std::string_view(), std::string_view())
        : read_.and_with(query.after.hour, as_bytes(query.after.owner), query.after.queue,
                         query.after.model);
  read_.and_with(query.until, kMostLooked);
  uint32_t looked = 0;
  while (page.rows.size() < query.limit && read_.step()) {
    ++looked;
    UsageRow row{.key = {read_.number(0), owner_in(read_.bytes(1)), std::string(read_.bytes(2)),
                         std::string(read_.bytes(3))},
                 .counts = {}};
    for (size_t i = 0; i < kUsageCounts; ++i) {
      row.counts[i] = read_.number(static_cast<int>(4 + i));
    }
    page.last = row.key;
    const bool wanted = (query.model.empty() || row.key.model == query.model) &&
                        (!query.by_owner || std::find(query.owners.begin(), query.owners.end(),
                                                      row.key.owner) != query.owners.end());
    if (wanted) {
      page.rows.push_back(std::move(row));
    }
  }
  const bool good = !read_.failed();
  read_.reset();
  page.more = looked == kMostLooked || page.rows.size() == query.limit;
  return good;
}

bool StoredUsage::prune(int64_t hour, int64_t most) {
  if (!write_ends()) {
    return false;
  }
  if (rows_ == 0) {
    return true;
  }
  if (rows_ > most) {
    shown_rows_ = rows_ = count_.with().only_number();
  }
  const int64_t oldest = oldest_.with().only_number();
  if (oldest >= hour && rows_ <= most) {
    return true;
  }
  if (!erase_.with(oldest).run()) {
    return false;
  }
  shown_rows_ -= database_.changes();
  rows_ = kUncounted;  // what is erased may be rolled back
  return true;
}

}  // namespace penstock::queue
