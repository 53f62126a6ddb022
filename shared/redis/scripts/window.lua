-- window: units in a window of the calendar, or in a sliding one, that many hosts count together.
--
--   Invariant   calendar: units counted in a window <= limit. Sliding: before * (part of the window before that a length back
--               from now covers) + in this one <= limit, whenever any are admitted; of what is settled afterwards, see debt.
--
-- Times are ms since 1970 by Redis's clock. Where that was set back, the window that was last goes on: no step gives a quota twice.
--
-- KEYS  1 the counter, a hash: p begin of the window, c units in it, q units in the one before
-- ARGV  1 now (0: Redis's own; a test brings its own)   2 limit   3 how many requests wait for   4 so many units each
--       5 correction, units: above 0 used besides, below 0 given back   6 begin of the window that they belong to (0: this one)
--       7 length of a sliding window, ms; 0: the calendar's, by
--       8 units used of it by what the host last heard: they count where Redis has lost them
--       9 10 11 12 when the window before, this one, the next and the one behind it begin, as the host reckons
-- Answer {requests served, units left, ms until so many units as one asks for fit (0: now), ms until nothing is used, begin,
--        units used besides that there was no room for};
--       {-1, now}: the host's calendar is off by more than a window: nothing was done
-- Errors FOREIGN: the key holds what is not ours
-- O(1).
local call, floor, max, min = redis.call, math.floor, math.max, math.min
local k, a = KEYS[1], ARGV
local now = a[1] + 0
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end
local limit, each, length = a[2] + 0, a[4] + 0, a[7] + 0

local s = call('HMGET', k, 'p', 'c', 'q')
local begin, count, before = tonumber(s[1]), tonumber(s[2]), tonumber(s[3])
if not (begin and count and before) then
  if call('EXISTS', k) == 1 then return redis.error_reply('FOREIGN ' .. k .. ' is not a window of Penstock') end
  begin, count, before = false, 0, 0
end

-- The window of now, the one before it, and when it ends.
local from, last, ends
if length > 0 then
  from = floor(now / length) * length
  last, ends = from - length, from + length
else
  for i = 10, 11 do
    if now >= a[i] + 0 and now < a[i + 1] + 0 then from, last, ends = a[i] + 0, a[i - 1] + 0, a[i + 1] + 0 end
  end
  if not from and now >= a[9] + 0 and now < a[10] + 0 then from, last, ends = a[9] + 0, 0, a[10] + 0 end
  if not from then return {-1, now} end
end
if not begin then
  begin, count = from, a[8] + 0
elseif begin > from then
  ends = begin + (ends - from)
  from, now = begin, max(now, begin)
elseif begin < from then
  before = begin == last and count or 0
  begin, count = from, 0
end
if length == 0 then before = 0 end

-- In parts, so that products stay whole: of a second where a window is longer than a day.
local part = ends - from > 86400000 and 1000 or 1
local whole, covered = floor((ends - from) / part), math.ceil((ends - now) / part)
local function room()
  local free = limit * whole - before * covered - count * whole
  if free <= 0 then return 0 end
  local units = floor(free / whole)
  return units * whole > free and units - 1 or units
end

local fix, of = a[5] + 0, a[6] + 0
local over = fix > 0 and max(0, fix - room()) or 0
if fix > 0 or of == 0 or of == begin then
  count = max(0, count + fix)
elseif of == last then
  before = max(0, before + fix)
end

local served = 0
if a[3] + 0 > 0 then
  served = min(a[3] + 0, floor(room() / each))
  count = count + served * each
end

local left, wait = room(), 0
if left < each and each <= limit then
  local here = count + each <= limit
  local fading = here and before or count
  local free = limit - each - (here and count or 0)
  if length == 0 then
    wait = ends - now
  else
    local kept = fading == 0 and whole or min(whole, floor(free * whole / fading))
    wait = max(1, (here and from or ends) + (whole - kept) * part - now)
  end
end
local reset = count > 0 and ends - now + length or before > 0 and ends - now or 0

call('HSET', k, 'p', string.format('%.0f', begin), 'c', string.format('%.0f', count), 'q', string.format('%.0f', before))
call('PEXPIRE', k, ends - now + length + 1000)
return {served, left, wait, reset, begin, over}
