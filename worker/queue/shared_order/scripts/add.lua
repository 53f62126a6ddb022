-- add: a job comes in. It may be said again, by whoever did not hear the answer: what is there is not added twice.
--
-- ARGV  4 id   5 lane   6 owner, 8 bytes   7 priority   8 cost   9 weight   10 not before, us (0: at once)   11 came, us (0: now)
--       12 deadline, us (0: what follows)   13 deadline from when it came, or is due, us (0: none)   14 failed attempts so far
--       15 most jobs that wait (0: it was promised before, and is not refused)   16 most of an owner (0: as many)
--       17 its home: the host that is told of its end   18 idempotency key (empty: none)   19 what that stands for   20 its life, ms
--       21 deadline once it has been taken, us (0: the same; -1: none)   22 a job that does not count as having the key
--       23 the last position at which it is let in (0: any; -1: any, and its position is not told; -2: none)   24 body
--       25 marks, as in open.lua   26 in whose list it is: 32 digits (empty: in none)   27 1: what is over by this id begins anew
--       28 only where replicas are waited for: 1: something is written also where the job is there, for that is what is waited for
-- Answer {1, us until something is due, its position (0: it is scheduled, or it is not told)}; {2}, {3}: queue, owner full; {4, job}: a
--       job of this id is there; {5, job, what for}: another has the key; {6, position}: it would stand further back than is let in
-- O(log n)
@open@
@line_up@
@stand@
local NOBODYS = '00000000000000000000000000000000'
local id, lane, owner = a[4], a[5], a[6]
local rank = pack('>I8', 4503599627370496 - a[7])
local class = rank .. lane
local s = call('HMGET', P .. 's', 'd', 'w', 'n', class)
if s[1] and now >= s[1] + 0 then
  @over@
  @due@
  s = call('HMGET', P .. 's', 'd', 'w', 'n', class)
end
next_due = tonumber(s[1]) or NEVER
local key = P .. 'j|' .. id
local there, fence, marks = call('GETRANGE', key, 0, 7), 0, a[25]
if there ~= '' then
  if a[27] ~= '1' or string.byte(there) ~= OVER then
    if a[28] then call('HSET', P .. 's', 'y', now) end
    return {4, id}
  end
  fence, marks = 1 + select(4, unpack_('>BBI2I4', there)), marks + 32
end
if a[18] ~= '' then
  local had = call('GET', P .. 'k|' .. a[18])
  if had then
    local other, digest = string.match(had, '^(%S+) (.*)$')
    if other ~= a[22] and call('EXISTS', P .. 'j|' .. other) == 1 then
      if a[28] then call('HSET', P .. 's', 'y', now) end
      return {5, other, digest}
    end
  end
end
local waiting, most = tonumber(s[2]) or 0, a[15] + 0
if most > 0 and waiting >= most then return {2} end
if most > 0 and a[16] ~= '0' and tonumber(call('HGET', P .. 'o', owner) or 0) >= a[16] + 0 then return {3} end
local cost, weight, later = a[8] + 0, a[9] + 0, a[10] + 0
local came = a[11] ~= '0' and a[11] + 0 or now
if later > came then came = later end
local dead = a[12] + 0
if dead == 0 then dead = a[13] ~= '0' and came + a[13] or NEVER end
local ends = a[21] == '-1' and NEVER or a[21] + 0
local attempts = a[14] + 0
local state, th, tl, eh, el, arrival, due = SCHEDULED, 0, 0, 0, 0, 0, dead
local set = {'HSET', P .. 's', 'w', waiting + 1}
local position = 0
if later <= now then
  state, arrival = WAITING, (tonumber(s[3]) or 0) + 1
  local last = a[23] == '-2' and 0.5 or a[23] + 0
  if last > 0 then
    th, tl = begins(lane, owner, rank, s[4])
  else
    th, tl, eh, el, set[8] = line_up(lane, owner, rank, cost, weight, s[4])
  end
  local here = rank .. pack('>I4I4I8', th, tl, arrival)
  local lanes = lane == '' and call('SMEMBERS', P .. 'n')
  if last >= 0 then
    position = 1 + call('ZLEXCOUNT', P .. 'l|' .. lane, '-', '(' .. here)
    for _, other in ipairs(lanes or {''}) do
      if other ~= lane then position = position + call('ZLEXCOUNT', P .. 'l|' .. other, '-', '(' .. here) end
    end
  end
  if last > 0 then
    if position > last then return {6, position} end
    th, tl, eh, el, set[8] = line_up(lane, owner, rank, cost, weight, s[4])
  end
  set[5], set[6], set[7] = 'n', arrival, class
  stand(lane, here .. id, lanes)
elseif later < dead then
  due = later
end
call('SET', key, pack(JOB, state, marks, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, NOBODY, a[17], #lane,
                      lane) .. a[24])
call(unpack(set))
call('HINCRBY', P .. 'o', owner, 1)
if due < NEVER then
  call('ZADD', P .. 't', due, id)
  soon(due)
end
if a[26] ~= '' then
  call('ZADD', P .. 'u', 0, id .. a[26] .. a[18])
  if a[26] ~= NOBODYS then call('ZADD', P .. 'u|' .. a[26], 0, id) end
  if a[27] == '1' then call('ZREM', P .. 'z', id) end
end
if a[18] ~= '' then call('SET', P .. 'k|' .. a[18], id .. ' ' .. a[19], 'PX', a[20]) end
return {1, next_due < NEVER and math.max(0, next_due - now) or -1, position}
