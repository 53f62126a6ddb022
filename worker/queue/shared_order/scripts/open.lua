-- open: what each script of the order begins with.
--
-- The order is the one of order/scheduler.h, and each script does what one call there does. A queue's keys have one name in braces,
-- and so are in one slot of a cluster: PREFIX:q1:{QUEUE}: and then
--
--   s         hash: b when it was made, us; n arrivals; w jobs that wait; k jobs that were taken; p 1 while paused; d nothing is due
--             before it, us; CLASS jobs and V of each class that has jobs; h|LANE the highest rank taken since its aging was
--             looked at; a|LANE k at its last promotion; y when something was last written for replicas to tell of
--   n         set: lanes, by model; "" is the lane of jobs that name none
--   l|LANE    zset of those that may be taken, all scores 0: the bytes of a member are the order. rank, tag, arrival, id; of one that
--             was let before: 0, arrival, tag, id. Numbers are of 8 bytes, the highest first; a rank is 2^52 - priority
--   f|CLASS   hash: an owner's flow (order/fair_share.h); CLASS is the rank's 8 bytes and the lane
--   i|CLASS   zset: its flows without jobs, by their end
--   j|ID      string: a job (JOB below), then its body; once it is over, a letter that says how, and its result (its
--             body, where there is none)
--   t         zset: jobs by the time at which something happens to them: the deadline, or when they may be taken
--   a         zset: lanes by when aging is looked at
--   o         hash: how many jobs of each owner wait, of those that are counted there
--   H         zset: hosts by when their leases end, us; 0: it has ended, and its jobs are being taken back
--   h|HOST    hash: the jobs that it runs, and their fences
--   C         zset: homes of callers who wait, by when they are missed, us; G: those that are missed, by when the jobs of theirs are cancelled
--   C|HOME    set: the jobs that callers wait for there, and nobody else
--   w|LANE    set: hosts whose workers of that lane wait for a job
--   k|KEY     string: the job that has this idempotency key, and what the key stands for
--   r         hash: what each host serves, behind the time until which that holds, us (8 bytes)
--   g         zset: results that lie elsewhere, by when they are to be removed, us
--   x         string: the secret under which the hosts hash owners and keys
--   u         zset of all that are in lists, scores 0: id, its owner's hash (32 digits; who is nobody has zeros), and its key, if any
--   u|OWNER   zset: its ids, scores 0
--   z         zset: the ids of dead letters, scores 0
--   b|ID      string: the body of a job that is over, where it may be wanted again: a dead letter's, or as its marks say
--   q|ID      string: the dead letter was dropped a moment ago, and its end is not said again
--   y|ASKED   string: the last job that completed of those that ask the same, for requests that an earlier answer may do
--   d|KIND    zset: ends that are to be told, by when, us; while a host tells one, by when its lease of that ends. KIND: w the owners' URLs,
--             e the feed, n|HOOK an operator's hook
--   D|KIND    hash: how often those were tried that were tried before
--   N         hash: the operator's hooks, by the time until which some host has them, us
--   v         zset: URLs that want to hear no more, by when they said so, us
--   m|ID      string: what the job was charged under limits that are in a Redis: its home, and a receipt. S: the home settles that now;
--             T: another host has taken it to do so
--   M         zset: homes for which there are such, by when others may settle them, us; M|HOME: its jobs, by when they are looked at, us
--   c|HOST    channel, also of a home: what a host must hear at once ("over ID ID…", "stop ID FENCE", "wake LANE"; "parts …": shared_answers/parts.h)
--   e|ID      stream: a job's answer so far (shared_answers/parts.h); and a channel: it has an entry more, or ("over") the job has ended
--
-- Times are us since 1970 by Redis's clock. Where that is stepped, what is due comes so much earlier or later; the order does not
-- depend on it.
--
-- When Redis's memory is full, only what comes in is refused: the first write of each other script is one that removes something, which
-- Redis lets pass, and with it the rest of the script.
--
-- It makes no closure, for each costs a script that is called for every job 0.2 us. No texts are compared by < in any script: Lua
-- compares by the server's locale.
--
-- KEYS  1 what all keys begin with. It is none itself: so a cluster runs nothing while the slot is being moved, but says ASK
-- ARGV  1 now, us (0: Redis's own; a test brings its own)   2 aging, us (0: none)   3 how long what is over is kept, ms
local P, a = KEYS[1], ARGV
local call, pack, unpack_, floor = redis.call, struct.pack, struct.unpack, math.floor
local now, aging = a[1] + 0, a[2] + 0
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
local B32, NEVER, NOBODY = 4294967296, 9007199254740991, '--------'
-- jobs, V; jobs, those that wait, weight, rest of the last division, end, end of the last that was taken. Tags have 63 bits, of which
-- a double keeps 53: they are kept in two.
local CLASS, FLOW = '>I4I4I4', '>I4I4I4I4I4I4I4I4'
-- state, marks, failed attempts, fence, rank, cost, weight, tag, end, arrival, came, deadline, deadline once it has been taken (0: the
-- same), owner, host, home, lane. Of one that is over: instead of the last deadline when it ended; instead of its end, how often its URL
-- was told of that, and what came of it (deliver.lua). Marks: 1 let before others, 2 its end is told to an URL, 4 to the hooks, 8 to the
-- feed, 16 its body is kept, 32 it was over once, and has begun anew, 64 it is
-- counted in o while it waits, as owners were bounded when it came, 128 its home's
-- caller waits for it, and nobody else
local JOB, JOB_MOST = '>BBI2I4c8I4I4I4I4I4I4I8I8I8I8c8c8c8Bc0', 351
-- A fence is at least the eighths of a second since 2026: four bytes of them end in 2043.
local FENCES_SINCE = 14137804800
local HOME_STAYS = 30000000  -- us: what a home was charged is its own to settle, from each renewal on
local CHARGE_LASTS = 5356800000  -- ms: two months, after which no window counts
local SCHEDULED, WAITING, DELAYED, RUNNING, OVER = 1, 2, 3, 4, 5
