-- log: when each unit of the last window was admitted, by many hosts; or, of a concurrency, taken or last renewed: then the
-- window is how long a unit is held that nobody renews.
--
--   Invariant   in no window of this length, wherever it begins, are there more than `limit` units.
--
-- KEYS  1 zset: HOST:SEQ:NUMBER of each unit, by when it was admitted, us since 1970 by Redis's clock; what is not above 0 is no unit,
--        but tells that the log was reset (reset.lua)
-- ARGV  1 now, us (0: Redis's own; a test brings its own)   2 limit   3 how many requests wait for   4 so many units each
--       5 correction, units: above 0 used besides, below 0 given back   6 of these, HOST:SEQ of the call that admitted them
--       7 and the first one's number in it
--       8 length, us   9 HOST:SEQ of this call: unlike any other   10 1: what is below 0 in 5 is not given back but renewed,
--       and held again if it was no more   11 units there by what the host last heard: they count where Redis has lost them
-- Answer {requests served, units left, ms until so many units as one asks for fit (0: now), ms until nothing is used, 0,
--        units used besides that there was no room for}
-- O(units that are admitted, given back or too old; log limit each); O(limit) where Redis's clock was set back.
local call, floor = redis.call, math.floor
local k, a = KEYS[1], ARGV
local now = a[1] + 0
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
local limit, each, length = a[2] + 0, a[4] + 0, a[8] + 0

-- The clock was set back: by up to a second it stands still, else all that is kept moves with it.
local latest = call('ZREVRANGE', k, 0, 0, 'WITHSCORES')
local ahead = latest[2] and latest[2] - now or 0
if ahead > 1000000 then
  for _, unit in ipairs(call('ZRANGE', k, 0, -1)) do call('ZINCRBY', k, string.format('%.0f', -ahead), unit) end
elseif ahead > 0 then
  now = now + ahead
end
call('ZREMRANGEBYSCORE', k, '(0', now - length)
local score = string.format('%.0f', now)
for i = 0, -a[5] - 1 do
  local unit = a[6] .. ':' .. string.format('%d', a[7] + i)
  if a[10] == '1' then call('ZADD', k, score, unit) else call('ZREM', k, unit) end
end
local over = a[5] + 0 > 0 and math.max(0, a[5] - math.max(0, limit - call('ZCOUNT', k, '(0', '+inf'))) or 0
for i = 1, a[5] + (latest[2] and 0 or a[11]) do call('ZADD', k, score, a[9] .. ':besides:' .. i) end

local count = call('ZCOUNT', k, '(0', '+inf')
local served = 0
if a[3] + 0 > 0 then
  served = math.min(a[3] + 0, math.max(0, floor((limit - count) / each)))
  for i = 0, served * each - 1 do call('ZADD', k, score, a[9] .. ':' .. i) end
  count = count + served * each
end

local wait, reset = 0, 0
if count + each > limit and each <= limit then
  local rank = call('ZCARD', k) + each - limit - 1
  local first = call('ZRANGE', k, rank, rank, 'WITHSCORES')
  wait = math.max(1, math.ceil((first[2] + length - now) / 1000))
end
if count > 0 then
  latest = call('ZREVRANGE', k, 0, 0, 'WITHSCORES')
  reset = math.ceil((latest[2] + length - now) / 1000)
  call('PEXPIRE', k, reset + 1000)
end
return {served, math.max(0, limit - count), wait, reset, 0, over}
