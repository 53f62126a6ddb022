#include "worker/queue/store/state_copy.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "shared/base/call_failed.h"

namespace penstock::queue {
namespace {

constexpr int kPagesAtOnce = 256;
constexpr int kFilesAtOnce = 500;

Status link(const std::string& from, const std::string& to) {
  return ::link(from.c_str(), to.c_str()) == 0 ? Status(Ok{}) : call_failed(from, "linking it");
}

Status has_room(Database& from, const std::string& state, uint64_t reserve_bytes) {
  const auto pages = from.ask("PRAGMA page_count");
  const auto page_bytes = from.ask("PRAGMA page_size");
  struct statvfs disk {};
  if (!pages || !page_bytes || ::statvfs(state.c_str(), &disk) != 0) {
    return Ok{};
  }
  const uint64_t wanted =
      std::strtoull(pages->c_str(), nullptr, 10) * std::strtoull(page_bytes->c_str(), nullptr, 10) +
      reserve_bytes;
  const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize;
  if (free < wanted) {
    return Error{fmt::format("{} has {} MiB free, and a copy of its jobs takes {} MiB", state,
                             free >> 20, wanted >> 20),
                 ErrorKind::kNoSpace};
  }
  return Ok{};
}

}  // namespace

void StateCopy::remove(const std::string& state) {
  std::error_code error;
  std::filesystem::remove_all(folder_of(state), error);
}

Result<std::unique_ptr<StateCopy>> StateCopy::begin(Database& from, const std::string& state,
                                                    uint64_t reserve_bytes) {
  remove(state);
  if (Status room = has_room(from, state, reserve_bytes); !room) {
    return room.error();
  }
  const std::string folder = folder_of(state);
  for (const std::string& each : {folder, folder + "/results"}) {
    if (::mkdir(each.c_str(), 0700) != 0) {
      return call_failed(each, "mkdir");
    }
  }
  if (Status linked = link(state + "/secret", folder + "/secret"); !linked) {
    return linked.error();
  }
  auto to = Database::open(folder + "/jobs.db", {});
  if (!to) {
    return to.error();
  }
  // It is nothing until it is whole, and whoever takes it away flushes it.
  if (Status ready = to->execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF;"
                                 "PRAGMA synchronous=OFF");
      !ready) {
    return ready.error();
  }
  ::chmod((folder + "/jobs.db").c_str(), 0600);
  std::unique_ptr<StateCopy> copy(new StateCopy(state, *std::move(to)));
  copy->pages_.reset(sqlite3_backup_init(copy->to_.get(), "main", from.get(), "main"));
  if (copy->pages_ == nullptr) {
    return copy->to_.error("copying jobs");
  }
  return copy;
}

Result<bool> StateCopy::step() { return pages_ != nullptr ? copy_pages() : link_results(); }

Result<bool> StateCopy::copy_pages() {
  const int rc = sqlite3_backup_step(pages_.get(), kPagesAtOnce);
  if (rc == SQLITE_OK || rc == SQLITE_BUSY || rc == SQLITE_LOCKED) {
    return true;
  }
  if (rc != SQLITE_DONE) {
    return Error{std::string("copying jobs failed: ") + sqlite3_errstr(rc)};
  }
  pages_.reset();
  return true;
}

Result<bool> StateCopy::link_results() {
  Statement files(to_,
                  "SELECT seq, id FROM jobs WHERE seq>? AND result_in_file=1 ORDER BY seq"
                  " LIMIT ?");
  int count = 0;
  for (files.with(linked_up_to_, kFilesAtOnce); files.step(); ++count) {
    linked_up_to_ = files.number(0);
    const std::string name = "/results/" + std::string(files.bytes(1));
    Status linked = link(state_ + name, folder_of(state_) + name);
    if (!linked && linked.error().kind != ErrorKind::kGone) {  // what is lost here is lost there
      return linked.error();
    }
  }
  if (files.failed()) {
    return to_.error("reading the copy");
  }
  if (count == kFilesAtOnce) {
    return true;
  }
  files = Statement();
  to_ = Database();
  ::unlink((folder_of(state_) + "/jobs.db-wal").c_str());  // empty, as it was only read
  return false;
}

}  // namespace penstock::queue
