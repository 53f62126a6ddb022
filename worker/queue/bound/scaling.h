// Scaling: how many processes there are of each worker, when an operator wants another number than
// the one of the configuration.
//
// Without a wish there is one for each device that the worker lists. What the configuration allows
// a worker on a device is all that its processes there may use together, whatever their number
// (devices.h). The first goes on under the worker's name; the others are called NAME#2, NAME#3 and
// so on, which no configuration can.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::queue {

class Scaling {
 public:
  static constexpr uint32_t kMostProcesses = 64;

  struct Worker {
    std::string name;
    uint32_t slots = 1;    // on a device
    uint32_t devices = 1;  // that it lists
    bool any_gpu = false;  // it may be on whatever GPU there is

    // Each process can have a slot of its own.
    uint32_t most() const;
  };
  struct Process {
    size_t worker;  // its place among those that were given
    std::string name;
    uint32_t slots;
  };

  // 0: it is stopped.
  void set(const std::string& worker, uint32_t processes) { wanted_[worker] = processes; }
  // The same, where no operator has said so.
  void set_by_load(const std::string& worker, uint32_t processes) { by_load_[worker] = processes; }
  // These scale by their load, and no others: each begins with so many.
  void begin_by_load(std::map<std::string, uint32_t> least);
  bool is_ordered(const std::string& worker) const { return wanted_.contains(worker); }
  void forget_order(const std::string& worker) { wanted_.erase(worker); }
  uint32_t of(const Worker& worker) const;

  // The processes of these workers, in their order. A worker that is stopped keeps one, with no
  // slots: callers may still name its model. Wishes about workers that are not there, or are too
  // many, are forgotten.
  std::vector<Process> apply(const std::vector<Worker>& workers);

  // The worker that a process is one of.
  static std::string_view worker_of(std::string_view process) {
    return process.substr(0, process.find('#'));
  }

 private:
  std::map<std::string, uint32_t> wanted_;
  std::map<std::string, uint32_t> by_load_;
};

}  // namespace penstock::queue
