// Scaling: how many processes each worker has, where an operator or its load asks for another
// number than the configuration.
//
// Else there is one for each device that the worker lists. What the configuration allows a worker
// on a device is for all its processes there together, whatever their number (devices.h). The first
// process has the worker's name. The others are called NAME#2, NAME#3 and so on: no worker in a
// configuration can have such a name.
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

    // The most processes: each needs a slot of its own.
    uint32_t most() const;
  };
  struct Process {
    size_t worker;  // its place among those that were given
    std::string name;
    uint32_t slots;
  };

  // 0: it is stopped.
  void set(const std::string& worker, uint32_t processes) { wanted_[worker] = processes; }
  // The same by its load: it does not count where an operator has ordered a number.
  void set_by_load(const std::string& worker, uint32_t processes) { by_load_[worker] = processes; }
  // Only these workers scale by their load. Each begins with so many processes.
  void begin_by_load(std::map<std::string, uint32_t> least);
  bool is_ordered(const std::string& worker) const { return wanted_.contains(worker); }
  // visit(worker, processes, whether by its load), of all that were said.
  template <typename Visit>
  void each(Visit&& visit) const {
    for (const auto& [worker, processes] : wanted_) {
      visit(worker, processes, false);
    }
    for (const auto& [worker, processes] : by_load_) {
      visit(worker, processes, true);
    }
  }
  void forget_order(const std::string& worker) { wanted_.erase(worker); }
  uint32_t of(const Worker& worker) const;

  // The processes of these workers, in their order. A worker that is stopped keeps one without
  // slots: callers may still name its model. Orders for workers that are not there, or of too many
  // processes, are forgotten.
  std::vector<Process> apply(const std::vector<Worker>& workers);

  // The name of the worker that a process belongs to.
  static std::string_view worker_of(std::string_view process) {
    return process.substr(0, process.find('#'));
  }

 private:
  std::map<std::string, uint32_t> wanted_;
  std::map<std::string, uint32_t> by_load_;
};

}  // namespace penstock::queue
