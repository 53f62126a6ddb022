-- lease: a token bucket (GCRA) that many hosts share. One call reports, gives back, corrects and takes.
--
-- A host takes units in batches, and spends them without asking. What is out (leased, and not yet reported spent) keeps the
-- bucket from filling behind its back:
--
--   Invariant   bucket + out <= burst at every moment. So in any time w all hosts together admit at most burst + w / T,
--               whenever they spend what they hold, and whatever dies.
--
-- Times are ticks of 1/16 us since 2025-01-01 UTC by Redis's clock. All of them, and T, are whole and stay below 2^53 until
-- 2042, so the arithmetic of doubles is exact.
--
-- KEYS  1 the bucket, a hash: t when it will be full again, o units out, n the latest time seen, l no lease ends before it,
--         b when it was made, hHOST "units end seq" of each host that holds some
-- ARGV  1 now (0: Redis's own; a test brings its own)   2 host   3 T, ticks a unit   4 burst   5 life of a lease, ticks
--       6 seq, higher with each call of a host that says what it holds (0: it says nothing)   7 what it holds
--       8 given back besides   9 how many requests wait for   10 so many units each; these are spent at once
--       11 units to hold   12 units that those leave in the bucket
--       13 correction, ticks: above 0 owed, below 0 given back of what was spent   14 debt: how far beyond empty it may go, ticks
--       15 how long, by what the host last heard, the bucket takes to fill, ticks   16 b as it last heard it (0: never)
--       17 how far beyond empty those who wait may take it, ticks: they go on only when it has what they took
-- Answer {requests served, units to hold, ticks until the bucket is full, 1 (0: what it held had lapsed), b, units out,
--        units of leases that were found to have ended, of all hosts, units that this host has spent since it last called,
--        units of what is owed that there was no room for};
--       {-1} a call that a later one of this host has overtaken: nothing was done
-- Errors FOREIGN: the key holds what is not ours
-- O(1); O(hosts) where a lease has ended or Redis's clock was set back.
local call, floor = redis.call, math.floor
local k, a = KEYS[1], ARGV
local now, mine = a[1] + 0, 'h' .. a[2]
if now == 0 then
  local time = call('TIME')
  now = ((time[1] - 1735689600) * 1000000 + time[2]) * 16
end
local T, burst, life, seq, holds = a[3] + 0, a[4] + 0, a[5] + 0, a[6] + 0, a[7] + 0
local most = burst * T

local s = call('HMGET', k, 't', 'o', 'n', 'l', 'b', mine)
local tat, out, seen, first, born = tonumber(s[1]), tonumber(s[2]), tonumber(s[3]), tonumber(s[4]), tonumber(s[5])
if not (tat and out and seen and first and born) then
  if call('EXISTS', k) == 1 then return redis.error_reply('FOREIGN ' .. k .. ' is not a bucket of Penstock') end
  tat, out, seen, first, born = now, 0, now, now + life, now
end

-- The clock was set back: by up to a second it stands still, else all that is kept moves with it.
local shift = 0
if now < seen then
  if seen - now <= 16000000 then now = seen else shift = seen - now end
  tat = tat - shift
end

-- The bucket is not the one that this host knew: Redis has lost it. What it knew still counts.
if a[16] + 0 ~= born and tat < now + a[15] then tat = now + a[15] end

-- It fills no higher than burst - out. What is counted as out until now has kept it so.
if tat < now + out * T then tat = now + out * T end

-- Leases that have ended: what they held is gone for good.
local held, last
local lapsed = 0
if now >= first or shift > 0 then
  local all = call('HGETALL', k)
  first = now + life
  for i = 1, #all, 2 do
    if string.byte(all[i]) == 104 then
      local units, ends, number = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
      if not units then return redis.error_reply('FOREIGN ' .. k .. ' is not a bucket of Penstock') end
      ends = ends - shift
      if ends <= now then
        out, lapsed = out - units, lapsed + units
        call('HDEL', k, all[i])
      else
        if ends < first then first = ends end
        if all[i] == mine then held, last = units + 0, number + 0 end
        if shift > 0 then call('HSET', k, all[i], string.format('%s %.0f %s', units, ends, number)) end
      end
    end
  end
elseif s[6] then
  local units, _, number = string.match(s[6], '^(%d+) (%d+) (%d+)$')
  if not units then return redis.error_reply('FOREIGN ' .. k .. ' is not a bucket of Penstock') end
  held, last = units + 0, number + 0
end

local late = seq > 0 and held and seq <= last
local valid, own, served, granted, spent, over = 1, held, 0, 0, 0, 0
if not late then
  -- What the host no longer holds, it has spent or gives back. What it says of a lease that has ended is not believed.
  if seq > 0 then
    own = held or 0
    if holds + a[8] > own then
      valid, holds = 0, 0
      lapsed = lapsed + own
    else
      spent = own - holds - a[8]
      tat = tat - a[8] * T
    end
    out = out - own + holds
    own = holds
  end

  local function room(beyond)
    local ticks = most + beyond - (tat - now)
    if ticks <= 0 then return 0 end
    local units = floor(ticks / T)
    return units * T > ticks and units - 1 or units
  end

  -- Reservations that are settled, and what was admitted without us. Of a bucket that the host did not know, a[15] has it.
  local owed = a[16] + 0 == born and a[13] + 0 or 0
  if owed > 0 then
    over = math.max(0, floor(owed / T) - room(0))
    local limit = now + most + a[14]
    if tat < limit then tat = math.min(tat + owed, limit) end
  elseif owed < 0 then
    tat = math.max(tat + owed, now + out * T)
  end

  if a[9] + 0 > 0 then
    served = math.min(a[9] + 0, floor(room(a[17] + 0) / a[10]))
    tat = tat + served * a[10] * T
  end
  if seq > 0 and a[11] + 0 > 0 then
    granted = math.max(0, math.min(a[11] + 0, room(0) - a[12]))
    tat, out, own = tat + granted * T, out + granted, own + granted
  end
end

call('HSET', k, 't', string.format('%.0f', tat), 'o', string.format('%.0f', out), 'n', string.format('%.0f', now),
     'l', string.format('%.0f', first), 'b', string.format('%.0f', born))
if late then return {-1} end
if seq > 0 then
  if own > 0 then
    call('HSET', k, mine, string.format('%.0f %.0f %.0f', own, now + life, seq))
  elseif held then
    call('HDEL', k, mine)
  end
end
call('PEXPIRE', k, math.ceil((math.max(tat - now, 0) + life) / 16000) + 1000)
return {served, granted, tat - now, valid, born, out, lapsed, spent, over}
