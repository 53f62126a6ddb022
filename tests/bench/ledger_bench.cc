// The ledger of usage: what it adds to each end.
//
//   ledger_bench [ROWS...]
//
// A promised job's end adds to a row within the transaction that writes the end: the store's thread
// pays. The end of one that is waited for goes to a mapped file and a map: the loop pays, and
// nobody waits for the disk. With so many rows in the ledger (1,000 and 1,000,000).
// Lines are `name=value` for the bench's table.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "worker/queue/jobs/usage_ledger.h"
#include "worker/queue/store/job_tables.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kEnds = 100'000;
constexpr uint64_t kAtOnce = 500;  // in a transaction
constexpr int64_t kHour = 490'000;

UsageRow row_of(uint64_t owner) {
  UsageRow row{.key = {kHour, owner, "default", "demo"}, .counts = {}};
  row.counts[kCompletedJobs] = row.counts[kRequests] = 1;
  row.counts[kPromptTokens] = row.counts[kCompletionTokens] = row.counts[kGpuMs] = 100;
  return row;
}

uint64_t mixed(uint64_t i) { return i * 0x9E3779B97F4A7C15 >> 20; }

void check(bool good) {
  if (!good) {
    std::fputs("ledger_bench: the database fails\n", stderr);
    std::exit(1);
  }
}

// Of so many ends, each of one of so many owners.
void add(JobTables& tables, uint64_t ends, uint64_t first, uint64_t owners) {
  for (uint64_t i = 0; i < ends; ++i) {
    check(i % kAtOnce != 0 || tables.begin());
    check(tables.usage().add(row_of(1 + (first + i) % owners)));
    check((i + 1) % kAtOnce != 0 || tables.commit());
  }
  check(ends % kAtOnce == 0 || tables.commit());
}

void stored(const std::string& folder, uint64_t rows) {
  std::vector<std::string> notices;
  auto tables = JobTables::open({.path = folder + "/jobs.db", .vfs = {}}, notices);
  check(static_cast<bool>(tables));
  add(**tables, rows, 0, rows);
  check((*tables)->checkpoint());
  const int64_t begin_ns = monotonic_ns();
  for (uint64_t i = 0; i < kEnds; i += kAtOnce) {
    check((*tables)->begin());
    for (uint64_t each = i; each < i + kAtOnce; ++each) {
      check((*tables)->usage().add(row_of(1 + mixed(each) % rows)));
    }
    check((*tables)->commit());
  }
  std::printf("stored_%lu_us=%.2f\n", rows,
              static_cast<double>(monotonic_ns() - begin_ns) / kEnds / kNsPerUs);
  std::printf("row_%lu_bytes=%.0f\n", rows,
              static_cast<double>(std::filesystem::file_size(folder + "/jobs.db")) /
                  static_cast<double>(rows));
}

void waited(const std::string& folder) {
  auto store = Store::open({.folder = folder + "/state"});
  std::vector<UsageRow> left;
  auto file = UsageFile::open(folder + "/state/usage", 1, left);
  check(store && file);
  UsageLedger ledger;
  ledger.use(**store, *std::move(file), {});
  constexpr uint64_t kRoom = UsageFile::kEntries;
  const int64_t begin_ns = monotonic_ns();
  for (uint64_t i = 0; i < kRoom; ++i) {
    const UsageRow row = row_of(1 + mixed(i) % 1000);
    ledger.add(row.key, row.counts);
  }
  std::printf("waited_ns=%.0f\n", static_cast<double>(monotonic_ns() - begin_ns) / kRoom);
}

int run(int argc, char** argv) {
  std::string folder = std::filesystem::temp_directory_path() / "ledger.XXXXXX";
  check(::mkdtemp(folder.data()) != nullptr);
  std::vector<uint64_t> sizes;
  for (int i = 1; i < argc; ++i) {
    sizes.push_back(std::strtoull(argv[i], nullptr, 10));
  }
  for (const uint64_t rows : sizes.empty() ? std::vector<uint64_t>{1000, 1'000'000} : sizes) {
    stored(folder, rows);
    std::filesystem::remove(folder + "/jobs.db");
    std::filesystem::remove(folder + "/jobs.db-wal");
  }
  waited(folder);
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace penstock::queue

int main(int argc, char** argv) { return penstock::queue::run(argc, argv); }
