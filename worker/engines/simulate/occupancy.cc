#include "worker/engines/simulate/occupancy.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "shared/base/clock.h"

namespace penstock::simulate {
namespace {

struct flock row_lock(size_t row) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(row);
  lock.l_len = 1;
  return lock;
}

class Locked {
 public:
  explicit Locked(int fd) : fd_(fd) { ::flock(fd_, LOCK_EX); }
  ~Locked() { ::flock(fd_, LOCK_UN); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  int fd_;
};

}  // namespace

std::unique_ptr<Occupancy> Occupancy::open(const std::string& path, const std::string& name) {
  // A device without a name has one, too: else its place would be free.
  const std::string device = (name.empty() ? "none" : name).substr(0, kNameBytes - 1);
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!fd.valid() || ::ftruncate(fd.get(), sizeof(File)) != 0) {
    throw std::runtime_error(path + " cannot be written: " + std::strerror(errno));
  }
  void* const mapped =
      ::mmap(nullptr, sizeof(File), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) {
    throw std::runtime_error(path + " cannot be mapped: " + std::strerror(errno));
  }
  return std::unique_ptr<Occupancy>(
      new Occupancy(std::move(fd), static_cast<File*>(mapped), device));
}

Occupancy::Occupancy(Fd fd, File* file, const std::string& device)
    : fd_(std::move(fd)), file_(file) {
  const Locked locked(fd_.get());
  for (size_t i = 0; i < kRows && row_ == nullptr; ++i) {
    struct flock lock = row_lock(i);
    if (::fcntl(fd_.get(), F_OFD_SETLK, &lock) == 0) {
      row_ = &file_->rows[i];
    }
  }
  for (DeviceSums& sums : file_->devices) {
    if (sums_ == nullptr && (sums.name[0] == '\0' || device == sums.name)) {
      sums_ = &sums;
    }
  }
  if (row_ == nullptr || sums_ == nullptr) {
    throw std::runtime_error("the occupancy file has no place left");
  }
  *row_ = {};
  std::copy(device.begin(), device.end(), row_->device);
  row_->pid = ::getpid();
  std::copy(device.begin(), device.end(), sums_->name);
}

Occupancy::~Occupancy() { ::munmap(file_, sizeof(File)); }

bool Occupancy::is_dead(size_t row) const {
  struct flock lock = row_lock(row);
  return &file_->rows[row] != row_ && ::fcntl(fd_.get(), F_OFD_GETLK, &lock) == 0 &&
         lock.l_type == F_UNLCK;
}

void Occupancy::add(int64_t jobs, int64_t bytes) {
  const Locked locked(fd_.get());
  row_->running += jobs;
  row_->held_bytes += bytes;
  int64_t running = 0;
  int64_t held_bytes = 0;
  for (size_t i = 0; i < kRows; ++i) {
    Row& row = file_->rows[i];
    if (row.pid == 0 || std::strcmp(row.device, row_->device) != 0) {
      continue;
    }
    if (is_dead(i)) {
      row = {};
      continue;
    }
    running += row.running;
    held_bytes += row.held_bytes;
  }
  const int64_t now_ns = monotonic_ns();
  if (sums_->changed_ns > 0) {
    const auto level = std::clamp<int64_t>(sums_->running, 0, kLevels - 1);
    sums_->level_ns[level] += now_ns - sums_->changed_ns;
  }
  sums_->changed_ns = now_ns;
  sums_->running = running;
  sums_->held_bytes = held_bytes;
  sums_->peak_running = std::max(sums_->peak_running, running);
  sums_->peak_held_bytes = std::max(sums_->peak_held_bytes, held_bytes);
}

}  // namespace penstock::simulate
