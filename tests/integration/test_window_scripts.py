"""The scripts by which hosts count together in windows, through the real redis-server: random histories beside a slow exact model
that keeps every unit."""

import math
import random
from fractions import Fraction

import pytest

from redis_server import RedisError
from test_lease_script import Script, redis, server  # noqa: F401 (fixtures)

MINUTE, DAY = 60_000, 86_400_000
NOW = 1_900_000_000_000


class Window(Script):
    def __init__(self, redis, length=0, bounds=()):
        super().__init__(redis, "window")
        self.length, self.bounds = length, bounds

    def __call__(self, now, limit, waiting=0, each=1, correction=0, of=0, known=0):
        bounds = self.bounds(now) if self.bounds else (0, 0, 0, 0)
        return super().__call__("window", now, limit, waiting, each, correction, of, self.length, known, *bounds)


def calendar(length):
    def bounds(now):
        this = now // length * length
        return this - length, this, this + length, this + 2 * length
    return bounds


class Counts:
    """What is counted in each window, all of it, for ever."""

    def __init__(self, length, limit, sliding):
        self.length, self.limit, self.sliding, self.counts, self.begin = length, limit, sliding, {}, 0

    def at(self, now):
        begin = now // self.length * self.length
        if begin < self.begin:  # the clock was set back
            return max(now, self.begin), self.begin
        self.begin = begin
        return now, begin

    def used(self, now):
        now, begin = self.at(now)
        used = Fraction(self.counts.get(begin, 0))
        if self.sliding:
            used += self.counts.get(begin - self.length, 0) * Fraction(begin + self.length - now, self.length)
        return used

    def add(self, now, units):
        self.counts[self.at(now)[1]] = max(0, self.counts.get(self.at(now)[1], 0) + units)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("sliding", [False, True])
def test_windows_admit_what_the_exact_model_does(redis, seed, sliding):
    random_ = random.Random(seed)
    length = random_.choice([1000, MINUTE, DAY])
    limit = random_.choice([1, 2, 7, 100, 50_000])
    window = Window(redis, length=length) if sliding else Window(redis, bounds=calendar(length))
    model = Counts(length, limit, sliding)
    now = NOW + random_.randrange(length)
    for step in range(200):
        now += random_.choice([0, 1, random_.randrange(length // 10), random_.randrange(length // 3)])
        waiting, each = random_.randrange(4), random_.choice([1, 1, 2, max(1, limit // 3), limit])
        told = now - random_.choice([0] * 30 + [3 * length])
        correction = random_.choice([0] * 8 + [1, 5, -1])
        over = max(0, correction - max(0, math.floor(limit - model.used(told)))) if correction > 0 else 0
        model.add(told, correction)
        served = 0
        while served < waiting and model.used(told) + each <= limit:
            model.add(told, each)
            served += 1
        answer = window(told, limit, waiting, each, correction)
        left = max(0, math.floor(limit - model.used(told)))
        assert answer[:2] == [served, left] and answer[5] == over, f"step {step}"
        if answer[2] and told == now:  # a true wait, and a tight one
            at, _ = model.at(now)
            future = Counts(length, limit, sliding)
            future.counts, future.begin = model.counts, model.begin
            assert future.used(at + answer[2]) + each <= limit
            future.begin = model.begin
            assert answer[2] == 1 or future.used(at + answer[2] - 1) + each > limit
        if answer[3] and told == now:
            future = Counts(length, limit, sliding)
            future.counts, future.begin = model.counts, model.begin
            assert future.used(now + answer[3]) == 0


def test_a_window_of_a_month_is_reckoned_in_seconds(redis):
    month = 30 * DAY
    window = Window(redis, length=month)
    begin = NOW // month * month
    assert window(begin, 200_000_000, waiting=1, each=200_000_000)[:2] == [1, 0]
    served, left, wait, *_ = window(begin + month + month // 2, 200_000_000, waiting=1, each=100_000_000)
    assert (served, left) == (1, 0) and wait > 0


def test_what_is_given_back_belongs_to_its_window(redis):
    window = Window(redis, bounds=calendar(DAY))
    first = NOW // DAY * DAY
    mark = window(first, 10, waiting=1, each=8)[4]
    assert mark == first
    assert window(first + DAY, 10, waiting=1, each=8)[:2] == [1, 2]
    assert window(first + DAY, 10, correction=-8, of=mark)[:2] == [0, 2]  # of yesterday's
    assert window(first + DAY, 10, correction=-8, of=first + DAY)[:2] == [0, 10]


def test_a_calendar_that_is_off_is_told(redis):
    window = Window(redis, bounds=lambda now: (now - 9 * DAY, now - 8 * DAY, now - 7 * DAY, now - 6 * DAY))
    assert window(NOW, 10, waiting=1) == [-1, NOW]


@pytest.mark.parametrize("name", ["window", "log"])
def test_what_is_not_ours_is_left_alone(redis, name):
    redis("SET", "key", "x")
    with pytest.raises(RedisError, match="FOREIGN|WRONGTYPE"):
        Script(redis, name)("key", NOW, 10, 1, 1, 0, "0", 0, 1000, "a:1", 0, 0, 0)
    assert redis("GET", "key") == b"x"


@pytest.mark.parametrize("seed", range(30))
def test_the_log_admits_what_the_exact_model_does(redis, seed):
    random_ = random.Random(seed)
    log = Script(redis, "log")
    limit, length = random_.choice([1, 2, 10, 60]), random_.choice([1_000_000, 60_000_000])
    units, now, calls = [], NOW * 1000, []
    for step in range(150):
        now += random_.choice([0, 1, random_.randrange(length // 5), random_.randrange(length)])
        told = now - random_.choice([0] * 20 + [length // 2])
        at = max([told] + [unit[0] for unit in units])
        if at - told > 1_000_000:
            units = [(unit[0] - (at - told), *unit[1:]) for unit in units]
            at = told
        units = [unit for unit in units if unit[0] > at - length]
        back, of = 0, "none:0"
        if calls and random_.random() < 0.2:
            of, back = calls.pop(random_.randrange(len(calls)))
            units = [unit for unit in units if unit[1] != of or unit[2] >= back]
        besides = random_.choice([0] * 8 + [1, 3]) if not back and units else 0
        over = max(0, besides - max(0, limit - len(units))) if besides else 0
        units += [(at, f"h:{step}:besides", i) for i in range(besides)]
        waiting, each = random_.randrange(4), random_.choice([1, 1, 2, limit])
        served = min(waiting, max(0, limit - len(units)) // each)
        units += [(at, f"h:{step}", i) for i in range(served * each)]
        if served:
            calls.append((f"h:{step}", served * each))
        left = max(0, limit - len(units))
        wait = 0
        if len(units) + each > limit >= each:
            nth = sorted(unit[0] for unit in units)[len(units) + each - limit - 1]
            wait = max(1, math.ceil((nth + length - at) / 1000))
        answer = log("log", told, limit, waiting, each, besides - back, of, 0, length, f"h:{step}", 0, 0)
        assert answer[:3] == [served, left, wait] and answer[5] == over, f"step {step}"


def test_what_redis_has_lost_counts_as_the_host_last_heard_of_it(redis):
    window = Window(redis, bounds=calendar(DAY))
    assert window(NOW, 10, waiting=3, known=8)[:2] == [2, 0]
    assert window(NOW, 10, waiting=1, known=3)[:2] == [0, 0]  # it has lost nothing
    log = Script(redis, "log")
    assert log("log", NOW, 10, 3, 1, 0, "-", 0, MINUTE * 1000, "h:1", 0, 8)[:2] == [2, 0]
    assert log("log", NOW, 10, 3, 1, 0, "-", 0, MINUTE * 1000, "h:2", 0, 2)[:2] == [0, 0]


def test_units_are_renewed_and_taken_anew_where_they_had_lapsed(redis):
    log = Script(redis, "log")
    assert log("log", NOW, 2, 2, 1, 0, "-", 0, 10_000_000, "h:1", 0, 0)[:2] == [2, 0]
    assert log("log", NOW + 6_000_000, 2, 0, 1, -1, "h:1", 0, 10_000_000, "h:2", 1, 0)[:2] == [0, 0]
    assert log("log", NOW + 11_000_000, 2, 0, 1, 0, "-", 0, 10_000_000, "h:3", 0, 0)[:2] == [0, 1]
    assert log("log", NOW + 30_000_000, 2, 0, 1, -1, "h:1", 1, 10_000_000, "h:4", 1, 0)[:2] == [0, 1]


def test_what_is_reset_is_not_brought_back_by_what_hosts_knew(redis):
    reset = Script(redis, "reset")
    window = Window(redis, bounds=calendar(DAY))
    assert window(NOW, 10, waiting=1, each=8)[:2] == [1, 2]
    assert reset("window", 0) == 1
    assert window(NOW, 10, waiting=1, each=3, known=8)[:2] == [1, 7]
    log = Script(redis, "log")
    minute = MINUTE * 1000
    assert log("log", NOW * 1000, 4, 4, 1, 0, "-", 0, minute, "h:1", 0, 0)[:2] == [4, 0]
    assert reset("log", MINUTE) == 1
    assert log("log", NOW * 1000, 4, 0, 1, 0, "-", 0, minute, "h:2", 0, 4)[:4] == [0, 4, 0, 0]
    assert log("log", NOW * 1000 + 1, 4, 5, 1, 0, "-", 0, minute, "h:3", 0, 4)[:4] == [4, 0, MINUTE, MINUTE]
    assert log("log", NOW * 1000 + minute, 4, 0, 1, 0, "-", 0, minute, "h:4", 0, 0)[:3] == [0, 0, 1]
    assert log("log", NOW * 1000 + minute + 1, 4, 0, 1, 0, "-", 0, minute, "h:5", 0, 4)[:3] == [0, 4, 0]
    assert redis("PTTL", "log") > 0
    assert reset("none", 0) == 0 and redis("EXISTS", "none") == 0
