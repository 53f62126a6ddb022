// The supervisor with time pushed in: a process that is not reaped is one that does not die.
#include "worker/queue/workers/supervisor.h"

#include <sys/wait.h>

#include "tests/unit/queue/jobs/session_fixture.h"

namespace penstock::queue {
namespace {

class SupervisorTest : public SessionTest {
 protected:
  SupervisorTest() { config_.worker_binary = "/bin/true"; }

  const Supervisor::Worker& worker() const { return *supervisor_.workers().front(); }
  void let(int64_t ns) {
    turn();
    advance(ns);
    supervisor_.advance_to(now_ns_);
  }
  void wait_for_its_end() const {
    siginfo_t info{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(worker().child.pid()), &info, WEXITED | WNOWAIT),
              0);
  }

  Supervisor supervisor_{connections_, dispatcher_};
};

TEST_F(SupervisorTest, AProcessThatDoesNotDieIsGivenUpOnce) {
  supervisor_.apply(config_);
  ASSERT_GT(worker().child.pid(), 0);
  wait_for_its_end();
  let(2 * kNsPerSec);
  EXPECT_TRUE(worker().killed) << "it closed its socket";
  let(2 * kNsPerSec);
  EXPECT_EQ(worker().session, nullptr) << "its jobs are back";
  EXPECT_NE(worker().seat, nullptr) << "what it uses stays taken";
  supervisor_.shut_down(now_ns_);
  let(kNsPerSec);
  EXPECT_FALSE(supervisor_.all_gone());
  supervisor_.reap();
  EXPECT_TRUE(supervisor_.all_gone());
}

}  // namespace
}  // namespace penstock::queue
