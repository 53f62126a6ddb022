// The http engine: jobs run on a server that somebody else wrote, behind one url.
//
// vLLM, SGLang, llama.cpp's server, TGI, Ollama, Triton, or any HTTP service: what each job says is
// passed on, and what comes back too, byte for byte. The server's own queue stays empty, as no more
// than `slots` jobs are there at once.
//
//     start ──▶ Transfers ──▶ Answer ──▶ the Sink
//                              │ ends
//                              ├──▶ done, failed
//                              └──▶ returned: first Rest closes the url, then the job goes back
//
// A job's device_ns is an estimate: each moment's time is shared over the jobs that run, as a
// server that batches shares its steps over them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "shared/base/result.h"
#include "worker/engines/http/answer.h"
#include "worker/engines/http/key.h"
#include "worker/engines/http/lingering.h"
#include "worker/engines/http/options.h"
#include "worker/engines/http/probe.h"
#include "worker/engines/http/request_edit.h"
#include "worker/engines/http/rest.h"
#include "worker/engines/http/shared_time.h"
#include "worker/engines/http/transfers.h"
#include "worker/pool/engine.h"
#include "worker/pool/log.h"

namespace penstock::http_engine {

class HttpEngine final : public Engine {
 public:
  // `sink` outlives this.
  HttpEngine(Options options, Key key, Sink& sink, Log log);
  ~HttpEngine() override;

  std::variant<std::unique_ptr<Plan>, Failure> admit(const Request& request) override;
  void start(JobNumber job, std::unique_ptr<Plan> plan) override;
  int64_t step(int64_t now_ns) override;
  int wake_fd() const override { return transfers_.fd(); }
  bool cancel(JobNumber job) override;
  void pause(JobNumber job) override;
  void resume(JobNumber job) override;
  // What the server tells of its own cache, where it does.
  Figures figures() const override;

 private:
  struct Job;

  void begin(Job& job, bool fresh);
  void end(const Transfers::Ended& ended);
  void end(Job& job, const TransferEnd& transfer);
  bool resend(Job& job, const TransferEnd& transfer);
  void expire_timers();
  void schedule(Job& job);
  void look();
  void look_at_slots();
  void release_lingering();
  void announce();
  int64_t linger_ns(const Job& job) const;
  uint32_t running() const { return static_cast<uint32_t>(jobs_.size()); }

  const Options options_;
  Key key_;
  Sink& sink_;
  Log log_;
  Answer::Shared shared_;
  Rest rest_;
  Rest::State told_;  // that penstockd was told last
  SharedTime time_;
  Transfers transfers_;
  Probe probe_;
  std::unordered_map<JobNumber, std::unique_ptr<Job>> jobs_;
  std::set<std::pair<int64_t, JobNumber>> timers_;  // not later than each job's
  Lingering lingering_;
  int64_t cancelled_ns_ = 0;  // the last of those
  std::string server_;        // as it calls itself
  int64_t now_ns_;
};

// An Error says which option is wrong, or what of its key_file.
Result<std::unique_ptr<Engine>> open(Options options, Sink& sink, Log log);

}  // namespace penstock::http_engine
