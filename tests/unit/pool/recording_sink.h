// A Sink that remembers, and what tests ask of it.
#pragma once

#include <string>
#include <vector>

#include "worker/pool/engine.h"

namespace penstock::test {

class RecordingSink : public Sink {
 public:
  struct Head {
    JobNumber job;
    int status;
    std::string content_type;
    int64_t content_length;
    std::string headers;
  };

  void head(JobNumber job, int status, std::string_view content_type, int64_t content_length,
            std::string_view headers) override {
    heads.push_back({job, status, std::string(content_type), content_length, std::string(headers)});
  }
  void chunk(JobNumber, std::string_view bytes) override { body += bytes; }
  void progress(JobNumber, double fraction, uint32_t step, uint32_t steps) override {
    fractions.push_back(fraction);
    last_step = step;
    last_steps = steps;
  }
  void done(JobNumber, const Usage& used) override { usages.push_back(used); }
  void failed(JobNumber, const Failure& failure) override { failures.push_back(failure); }
  void preview(JobNumber, std::string_view content_type, std::string_view bytes) override {
    previews.emplace_back(content_type, bytes);
  }
  void left(JobNumber job) override { gone.push_back(job); }
  void open(const Opening& opening) override {
    openings.push_back(opening);
    reasons.emplace_back(opening.why);
    openings.back().why = {};
  }

  std::vector<Head> heads;
  std::string body;  // of all jobs
  std::vector<double> fractions;
  uint32_t last_step = 0;
  uint32_t last_steps = 0;
  std::vector<Usage> usages;
  std::vector<Failure> failures;
  std::vector<std::pair<std::string, std::string>> previews;
  std::vector<JobNumber> gone;
  std::vector<Opening> openings;
  std::vector<std::string> reasons;  // of each of them
};

}  // namespace penstock::test
