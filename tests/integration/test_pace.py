"""A backend that counts, and refuses what is over its limit, never has a reason to."""

import threading
import time

from server import completion
from test_http_engine import PASS, behind, chat, server, status_of, together  # noqa: F401 (server is a fixture)
from waiting import until


class Counting:
    """Refuses a request if so many came in the last `seconds` before it; also notes how many ran at once. It looks at its clock
    in a thread of Python's, on a busy machine a while after the request came: so a tenth of the time is left out."""

    def __init__(self, most, seconds):
        self.most, self.seconds, self.lock = most, 0.9 * seconds, threading.Lock()
        self.came, self.refused, self.running, self.peak = [], 0, 0, 0

    def __call__(self, asked, reply):
        with self.lock:
            now = time.monotonic()
            self.refused += len([at for at in self.came if now - at < self.seconds]) >= self.most
            self.came.append(now)
            self.running += 1
            self.peak = max(self.peak, self.running)
        reply(completion())
        with self.lock:
            self.running -= 1


def test_a_paid_api_never_refuses_and_is_used_as_far_as_it_goes(penstock, server):  # noqa: F811
    api = Counting(100, 1)
    service = penstock(server=PASS, workers=[behind(server(api).url, slots=16, limit="[100r/1s]", concurrency=8)])
    assert [answer.status for answer in together(300, lambda: chat(service))] == [200] * 300
    assert api.refused == 0 and api.peak <= 8
    assert max(api.came) - min(api.came) > 1.9, "three windows' worth"


def test_what_was_used_is_kept_over_a_kill_of_everything(penstock, server):  # noqa: F811
    api = Counting(3, 3600)
    service = penstock(server=PASS, yaml="state: state\ndrain_timeout: 0s\n", workers=[behind(server(api).url, slots=2, limit="[3r/1h]", limit_key="paid")])
    assert [chat(service).status for _ in range(3)] == [200] * 3
    service.penstockd.kill()
    service.penstockd.start()
    service.wait_for_workers(service.penstockd)
    used = status_of(service)["workers"][0]["pace"]["limits"][0]
    assert used == {"unit": "requests", "amount": 3, "used": 3, "calendar": False, "seconds": 3600}
    late = threading.Thread(target=lambda: chat(service))
    late.start()
    until(lambda: service.penstockd.queue().length == 1, "it waits")
    assert status_of(service)["queues"][0]["predicted_wait_ms"] > 3_000_000, "and is told how long"
    service.penstockd.stop()
    late.join()
    assert len(api.came) == 3 and api.refused == 0
