// PredictionLog: the last waits that were foretold, each beside what came true.
//
// Of every job that was told when it will start, and that has started: so the same jobs as
// penstock_prediction_inside_ratio counts. It holds no more than kKept of them, and none of what
// was asked or answered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "shared/base/job_id.h"

namespace penstock::queue {

struct ForetoldWait {
  JobId id;
  std::string queue;
  std::string model;    // empty: the job names none
  int64_t told_ms = 0;  // when; time of day
  int64_t said_ns = 0;  // how long it would wait
  int64_t soon_ns = 0;  // between this
  int64_t late_ns = 0;  // and that
  int64_t waited_ns = 0;

  bool inside() const { return soon_ns <= waited_ns && waited_ns <= late_ns; }
};

class PredictionLog {
 public:
  static constexpr size_t kKept = 100;

  void add(ForetoldWait wait);

  // {"predictions":[{"id":"job_…","queue":"default","model":"words","at":1795960980,"said_ms":1200,
  // "soon_ms":900,"late_ms":1700,"waited_ms":1300,"inside":true}]}, the last to start first.
  std::string json() const;

 private:
  std::vector<ForetoldWait> waits_;
  size_t next_ = 0;  // once there are kKept: the oldest
};

}  // namespace penstock::queue
