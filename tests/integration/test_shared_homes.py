"""What a home leaves behind that dies: the jobs that its callers waited for."""

import threading

from shared_hosts import SLOW, get, host, job, post, promise, redis, until_known, worker  # noqa: F401 (host and redis are fixtures)
from waiting import until


def jobs_of(redis):
    """The states of all jobs, by id; 5: over."""
    return {key.decode().rsplit("|", 1)[1]: redis.ask("GETRANGE", key, 0, 0)[0] for key in redis.ask("KEYS", "penstock:*:j|*")}


def test_a_job_that_a_caller_waited_for_at_a_home_that_died_is_cancelled_where_it_runs(host, redis):
    edge, gpu = host(), host(worker(SLOW, slots=2))
    known = until_known(edge)
    until(lambda: gpu.penstockd.queue().running == 1, "the promised one runs")
    caller = threading.Thread(target=lambda: post(edge), daemon=True)
    caller.start()
    until(lambda: gpu.penstockd.queue().running == 2, "the caller's runs too")
    edge.penstockd.kill()
    until(lambda: gpu.penstockd.queue().running == 1, "it is cancelled", 40)
    assert job(gpu, known)["status"] == "processing"
    assert sorted(jobs_of(redis).values()) == [4, 5]
