#include "worker/queue/store/write_ahead_log.h"

#include <cstdlib>
#include <string_view>

namespace penstock::queue {
namespace {

// The format: https://sqlite.org/fileformat2.html#the_write_ahead_log
constexpr size_t kHeaderBytes = 32;
constexpr size_t kFrameHeaderBytes = 24;
// In a frame's header: the log's salts and the sums up to there.
constexpr size_t kSumsAt = 8;
constexpr size_t kSumsBytes = 16;

// The running sum over the log, and whether a frame is of it.
class LogSum {
 public:
  explicit LogSum(const std::string& header)
      : salt_(header.substr(16, 8)), big_endian_((header[3] & 1) != 0) {
    add(std::string_view(header).substr(0, 24));
  }
  static bool begins(const std::string& header) {
    constexpr uint32_t kMagic = 0x377F0682;  // the last bit: whether it sums big-endian words
    return (word(header.data(), true) & ~1U) == kMagic;
  }
  bool takes(std::string_view frame) {
    add(frame.substr(0, 8));
    add(frame.substr(kFrameHeaderBytes));
    return frame.substr(8, 8) == salt_ && word(frame.data() + 16, true) == first_ &&
           word(frame.data() + 20, true) == second_;
  }

 private:
  static uint32_t word(const char* at, bool big_endian) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      word |= uint32_t{static_cast<uint8_t>(at[i])} << 8 * (big_endian ? 3 - i : i);
    }
    return word;
  }
  void add(std::string_view bytes) {
    for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
      first_ += word(bytes.data() + at, big_endian_) + second_;
      second_ += word(bytes.data() + at + 4, big_endian_) + first_;
    }
  }

  std::string salt_;
  bool big_endian_;
  uint32_t first_ = 0;
  uint32_t second_ = 0;
};

}  // namespace

Status WriteAheadLog::open(Database& database, uint64_t bytes) {
  const auto page_bytes = database.ask("PRAGMA page_size");
  if (!page_bytes) {
    return page_bytes.error();
  }
  page_bytes_ = std::strtoll(page_bytes->c_str(), nullptr, 10);
  int keep = 1;
  sqlite3_int64 size = 0;
  sqlite3_file_control(database.get(), "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
  sqlite3_file_control(database.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &file_);
  if (file_ == nullptr || file_->pMethods == nullptr ||
      file_->pMethods->xFileSize(file_, &size) != SQLITE_OK) {
    return Error{"its log cannot be opened"};
  }
  bytes_ = size;
  first_bytes_ = bytes;
  if (!extend(bytes)) {
    return Error{"its log cannot be extended to " + std::to_string(bytes) + " bytes"};
  }
  sqlite3_wal_hook(
      database.get(),
      [](void* pages, sqlite3*, const char*, int count) {
        *static_cast<uint64_t*>(pages) = static_cast<uint64_t>(count);
        return SQLITE_OK;
      },
      &pages_);
  return Ok{};
}

bool WriteAheadLog::extend(uint64_t bytes) {
  const std::string zeros(64U << 10, '\0');
  while (static_cast<uint64_t>(bytes_) < bytes) {
    if (!write(zeros, static_cast<size_t>(bytes_))) {
      return false;
    }
    bytes_ += static_cast<int64_t>(zeros.size());
  }
  return true;
}

bool WriteAheadLog::empty(Database& database) {
  if (sqlite3_wal_checkpoint_v2(database.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr,
                                nullptr) != SQLITE_OK) {
    return false;
  }
  pages_ = 0;
  last_sums_.clear();
  bytes_ = 0;
  return extend(first_bytes_) && flush();
}

void WriteAheadLog::note_commit() {
  if (pages_ > 0) {
    last_sums_.resize(kSumsBytes);
    if (read(last_sums_, frame_at(pages_ - 1) + kSumsAt) != SQLITE_OK) {
      last_sums_.clear();
    }
  }
}

bool WriteAheadLog::flush() {
  return file_->pMethods->xSync(file_, SQLITE_SYNC_NORMAL) == SQLITE_OK;
}

bool WriteAheadLog::rewrite() {
  std::string header(kHeaderBytes, '\0');
  const int got_header = read(header, 0);
  if (got_header == SQLITE_IOERR_SHORT_READ ||
      (got_header == SQLITE_OK && !LogSum::begins(header))) {
    return pages_ == 0 && flush();  // it is empty
  }
  if (got_header != SQLITE_OK || !write(header, 0)) {
    return false;
  }
  LogSum sum(header);
  bool whole = pages_ == 0;
  std::string frame(kFrameHeaderBytes + static_cast<size_t>(page_bytes_), '\0');
  for (uint64_t pages = 1;; ++pages) {
    const size_t at = frame_at(pages - 1);
    const int got = read(frame, at);
    if (got != SQLITE_OK && got != SQLITE_IOERR_SHORT_READ) {
      return false;
    }
    if (got != SQLITE_OK || !sum.takes(frame)) {
      return whole && flush();
    }
    // Older frames than those that were lost may be sound, too.
    whole = whole || (pages == pages_ && frame.substr(kSumsAt, kSumsBytes) == last_sums_);
    if (!write(frame, at)) {
      return false;
    }
  }
}

// Where that page's frame begins.
size_t WriteAheadLog::frame_at(uint64_t page) const {
  return kHeaderBytes + page * (kFrameHeaderBytes + static_cast<size_t>(page_bytes_));
}

int WriteAheadLog::read(std::string& bytes, size_t at) {
  return file_->pMethods->xRead(file_, bytes.data(), static_cast<int>(bytes.size()),
                                static_cast<sqlite3_int64>(at));
}

bool WriteAheadLog::write(const std::string& bytes, size_t at) {
  return file_->pMethods->xWrite(file_, bytes.data(), static_cast<int>(bytes.size()),
                                 static_cast<sqlite3_int64>(at)) == SQLITE_OK;
}

}  // namespace penstock::queue
