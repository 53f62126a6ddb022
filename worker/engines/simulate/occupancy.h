// Occupancy: how many jobs run on each device, and what they hold there, over all processes, in a
// shared file. It is how tests judge the device bound: from the side of what runs, knowing nothing
// of who admitted it.
//
// Each process has a row, and holds a lock on the byte of that row's number: the kernel lets it go
// when the process is dead, so a row without its lock counts for nothing. Sums, peaks and the time
// at each level are brought up to date, under flock, with every change.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "shared/base/fd.h"

namespace penstock::simulate {

class Occupancy {
 public:
  static constexpr size_t kRows = 256;
  static constexpr size_t kDevices = 16;
  static constexpr size_t kLevels = 64;  // the last is for all above, too
  static constexpr size_t kNameBytes = 48;

  // The file, in the machine's byte order: the devices, then the rows.
  struct DeviceSums {
    char name[kNameBytes];
    int64_t running;
    int64_t peak_running;
    int64_t held_bytes;
    int64_t peak_held_bytes;
    int64_t changed_ns;         // CLOCK_MONOTONIC
    int64_t level_ns[kLevels];  // time that so many jobs ran
  };
  struct Row {
    char device[kNameBytes];
    int64_t pid;
    int64_t running;
    int64_t held_bytes;
  };
  struct File {
    DeviceSums devices[kDevices];
    Row rows[kRows];
  };

  // Throws std::runtime_error when the file cannot be used, or has no place left.
  static std::unique_ptr<Occupancy> open(const std::string& path, const std::string& device);
  ~Occupancy();
  Occupancy(const Occupancy&) = delete;
  Occupancy& operator=(const Occupancy&) = delete;

  // Changes how many jobs run on this process's device and how much memory they hold. Both may be
  // negative.
  void add(int64_t jobs, int64_t bytes);

 private:
  Occupancy(Fd fd, File* file, const std::string& device);
  bool is_dead(size_t row) const;

  Fd fd_;
  File* file_;
  Row* row_ = nullptr;
  DeviceSums* sums_ = nullptr;
};

}  // namespace penstock::simulate
