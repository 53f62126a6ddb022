// The record of a hand-over: entries (entries.h), one after the other, in memory that both have.
//
//     8 bytes magic, then entries as frames of the wire (shared/wire/PROTOCOL.md): CarriedBegin
//     first, CarriedEnd last
//
// It lies in a memfd, sealed against change, whose descriptor stays open over exec(2) and is named
// by kVariable in the environment. So it is never on disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/result.h"
#include "worker/queue/handover/entries.h"

namespace penstock::queue {

// Formats are a range: a penstockd writes the newest, and takes over from any of these. Whatever a
// reader must understand that an older one does not makes another.
constexpr uint64_t kOldestFormat = 1;
constexpr uint64_t kNewestFormat = 1;

constexpr char kHandOverVariable[] = "PENSTOCK_HAND_OVER";

class RecordWriter {
 public:
  // Error: there is no memory for it.
  static Result<RecordWriter> create();

  template <typename Entry>
  void add(const Entry& entry) {
    wire::append(buffer_, 0, entry);
    ++entries_;
    if (buffer_.size() >= kFlushBytes) {
      flush();
    }
  }
  // The end is written, and the record sealed. Its descriptor goes with exec(2) only once
  // FD_CLOEXEC was taken off.
  Result<Fd> finish();

 private:
  static constexpr size_t kFlushBytes = 1U << 20;
  explicit RecordWriter(Fd memory) : memory_(std::move(memory)) {}
  void flush();

  Fd memory_;
  std::string buffer_;
  uint64_t entries_ = 0;
  int failed_ = 0;  // errno
};

// Reads entry by entry; texts point into the record.
class RecordReader {
 public:
  explicit RecordReader(std::string_view record);

  // The next entry; false at the end, or at the first broken rule: error() tells which.
  bool next();
  wire::FrameType type() const { return type_; }
  // The entry as that. False, and error(): it is not. REQUIRES: type() is its.
  template <typename Entry>
  bool read(Entry& entry) {
    const char* const error = wire::parse(payload_, entry);
    error_ = error != nullptr ? error : error_;
    return error == nullptr;
  }
  // Whether it is an entry of that type; if it reads as one, take(entry) is called.
  template <typename Entry, typename Take>
  bool on(Take&& take) {
    if (type_ != Entry::kType) {
      return false;
    }
    if (Entry entry; read(entry)) {
      take(entry);
    }
    return true;
  }
  const char* error() const { return error_; }

 private:
  std::string_view rest_;
  wire::FrameType type_{};
  std::string_view payload_;
  uint64_t entries_ = 0;
  bool over_ = false;
  const char* error_ = nullptr;
};

// A record that another process made, mapped for as long as this lives.
class MappedRecord {
 public:
  // Takes kHandOverVariable out of the environment. Invalid: nothing is handed over. Error: what is
  // is no record.
  static Result<MappedRecord> from_environment();
  MappedRecord() = default;
  MappedRecord(MappedRecord&& other) noexcept;
  MappedRecord& operator=(MappedRecord&&) = delete;
  ~MappedRecord();

  bool valid() const { return data_ != nullptr; }
  std::string_view bytes() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// Checks a record, from its magic to its end: nullptr, or the rule that is broken. Each entry is
// read as what it is.
const char* check_record(std::string_view record, CarriedBegin& begin);

// Keeps a descriptor open over exec(2), or not. Error: there is none of that number.
Status keep_over_exec(int fd, bool keep);
// A descriptor that was handed over, closed at the next exec(2) again. Error: there is none.
Result<Fd> take_descriptor(uint64_t fd);

}  // namespace penstock::queue
