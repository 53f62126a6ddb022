"""A caller who reads slowly, or not at all, while others are answered."""

import json

from conftest import simulate
from waiting import until

PASS = "location / { penstock_pass gpu; }"
WORDY = [simulate(slots=2, tokens_per_second="1e9", output_tokens=1000000)]


def worker(service):
    return json.loads(service.penstockd.status())["workers"][0]


def until_it_rests(service):
    """Until the worker makes no more words, from one sign of life to the next."""
    made = [0, 0]

    def rests():
        tokens = worker(service)["generation_tokens"]
        if tokens != made[-1]:
            made.append(tokens)
            made_at.append(beats())
        return made[-1] > 1000 and beats() >= made_at[-1] + 3

    def beats():
        return json.loads(service.penstockd.status())["uptime_seconds"]

    made_at = [beats()]
    until(rests, "the worker rests", 40)


def test_a_slow_reader_gets_all_of_a_long_answer_and_holds_nobody_up(penstock):
    service = penstock(server=PASS, workers=WORDY)
    stream = service.stream(max_tokens=60000)
    assert stream.next_event()
    until_it_rests(service)
    assert service.complete(max_tokens=5).json()["usage"]["completion_tokens"] == 5, "its neighbour in the batch goes on"
    assert worker(service)["running"] == 1
    events = list(stream.events())
    assert events[-1] == "[DONE]" and len(events) > 59000
    until(lambda: worker(service)["running"] == 0, "its slot is free")


def test_who_reads_nothing_for_long_is_told_and_frees_the_slot(penstock):
    service = penstock(server=PASS, workers=WORDY, limits={"read_timeout": "1s"})
    stream = service.stream(max_tokens=200000)
    assert stream.next_event()
    until(lambda: worker(service)["running"] == 0, "its slot is free", 40)
    events = list(stream.events())
    error = json.loads(events[-1])["error"]
    assert error["code"] == "not_read" and "nothing of it was read for 1s" in error["message"]
