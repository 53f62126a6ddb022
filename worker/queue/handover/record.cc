#include "worker/queue/handover/record.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace penstock::queue {
namespace {

constexpr std::string_view kMagic = "PHANDOV1";

Error failed(const std::string& what, int error) {
  return Error{what + ": " + std::strerror(error)};
}

template <typename Entry>
bool is(wire::FrameType type) {
  return type == Entry::kType;
}

// Whether it is one of these.
template <typename... Entries>
bool is_any(RecordReader& reader) {
  return (reader.on<Entries>([](const Entries&) {}) || ...);
}

}  // namespace

Result<RecordWriter> RecordWriter::create() {
  Fd memory(::memfd_create("penstock-hand-over", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) {
    return failed("memfd_create failed", errno);
  }
  RecordWriter writer(std::move(memory));
  writer.buffer_ = kMagic;
  return writer;
}

void RecordWriter::flush() {
  for (std::string_view rest = buffer_; !rest.empty() && failed_ == 0;) {
    const ssize_t n = ::write(memory_.get(), rest.data(), rest.size());
    if (n < 0 && errno != EINTR) {
      failed_ = errno;
    }
    rest.remove_prefix(static_cast<size_t>(n < 0 ? 0 : n));
  }
  buffer_.clear();
}

Result<Fd> RecordWriter::finish() {
  wire::append(buffer_, 0, CarriedEnd{.entries = entries_});
  flush();
  if (failed_ == 0 && ::fcntl(memory_.get(), F_ADD_SEALS,
                              F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
    failed_ = errno;
  }
  if (failed_ != 0) {
    return failed("what is to be handed over cannot be written to memory", failed_);
  }
  return std::move(memory_);
}

RecordReader::RecordReader(std::string_view record) : rest_(record) {
  if (!rest_.starts_with(kMagic)) {
    error_ = "it is no hand-over record";
    return;
  }
  rest_.remove_prefix(kMagic.size());
}

bool RecordReader::next() {
  if (error_ != nullptr || over_) {
    return false;
  }
  if (rest_.size() < wire::kHeaderBytes) {
    error_ = "it is cut short";
    return false;
  }
  const auto length = load_le<uint32_t>(rest_.data());
  type_ = static_cast<wire::FrameType>(static_cast<uint8_t>(rest_[4]));
  rest_.remove_prefix(wire::kHeaderBytes);
  if (length > rest_.size()) {
    error_ = "it is cut short";
    return false;
  }
  payload_ = rest_.substr(0, length);
  rest_.remove_prefix(length);
  if (is<CarriedBegin>(type_) != (entries_ == 0)) {
    error_ = "it does not begin with what it is";
    return false;
  }
  if (is<CarriedEnd>(type_)) {
    CarriedEnd end;
    over_ = true;
    if (read(end) && (end.entries != entries_ || !rest_.empty())) {
      error_ = "it does not have all of its entries";
    }
    return false;
  }
  ++entries_;
  return true;
}

const char* check_record(std::string_view record, CarriedBegin& begin) {
  RecordReader reader(record);
  if (reader.next()) {
    reader.read(begin);
    if (reader.error() == nullptr &&
        (begin.format < kOldestFormat || begin.format > kNewestFormat)) {
      return "it is of a format that this penstockd does not read";
    }
  }
  while (reader.next()) {
    const bool known =
        is_any<CarriedListener, CarriedLock, CarriedDevice, CarriedCaller, CarriedWorker,
               CarriedGiven, CarriedClaim, CarriedQueue, CarriedLane, CarriedClass, CarriedFlow,
               CarriedJob, CarriedWaiter, CarriedScale>(reader);
    if (!known) {
      return "it has an entry of no known type";
    }
  }
  return reader.error();
}

Result<MappedRecord> MappedRecord::from_environment() {
  const char* const value = ::getenv(kHandOverVariable);
  const std::string text = value == nullptr ? "" : value;
  ::unsetenv(kHandOverVariable);
  MappedRecord record;
  if (text.empty()) {
    return record;
  }
  int number = -1;
  const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (bad != std::errc() || end != text.data() + text.size() || number < 0) {
    return Error{std::string(kHandOverVariable) + " is for penstockd itself to set; leave it out"};
  }
  const Fd memory(number);
  struct stat status {};
  if (::fstat(memory.get(), &status) != 0 || status.st_size <= 0) {
    return Error{"what was handed over is not there: descriptor " + text};
  }
  constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_WRITE;
  const int seals = ::fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSealed) != kSealed) {
    return Error{"what was handed over is no sealed memory: descriptor " + text};
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, memory.get(), 0);
  if (data == MAP_FAILED) {
    return failed("what was handed over cannot be mapped", errno);
  }
  record.data_ = static_cast<const char*>(data);
  record.size_ = size;
  return record;
}

MappedRecord::MappedRecord(MappedRecord&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedRecord::~MappedRecord() {
  if (data_ != nullptr) {
    ::munmap(const_cast<char*>(data_), size_);
  }
}

Status keep_over_exec(int fd, bool keep) {
  if (::fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC) != 0) {
    return failed("descriptor " + std::to_string(fd) + " cannot be handed over", errno);
  }
  return Ok{};
}

Result<Fd> take_descriptor(uint64_t fd) {
  const int number = fd > 2 && fd <= INT_MAX ? static_cast<int>(fd) : -1;
  if (Status kept = keep_over_exec(number, false); !kept) {
    return kept.error();
  }
  return Fd(number);
}

}  // namespace penstock::queue
