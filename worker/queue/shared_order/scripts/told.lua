-- told: an end was told, or not: it is tried again, or over.
--
-- ARGV  4 kind   5 id   6 fence   7 tries   8 in how long it is tried again, us (-1: it is not)   9 what came of it (1 delivered, 2 given
--       up, 3 its URL wants no more; of owners' URLs alone)   10 that URL (empty: none said so now)
-- Answer 1; 0: the lease is another's now
-- O(log n)
@open@
local due, tries, key = P .. 'd|' .. a[4], P .. 'D|' .. a[4], P .. 'j|' .. a[5]
if tonumber(call('ZSCORE', due, a[5])) ~= a[6] + 0 then return 0 end
call('ZREM', due, a[5])
if a[8] ~= '-1' then
  call('ZADD', due, now + a[8], a[5])
  call('HSET', tries, a[5], a[7])
  return 1
end
call('HDEL', tries, a[5])
if a[10] ~= '' then
  call('ZADD', P .. 'v', now, a[10])
  call('ZREMRANGEBYRANK', P .. 'v', 0, -1001)
end
local text = a[4] == 'w' and call('GETRANGE', key, 0, JOB_MOST) or ''
if text ~= '' and string.byte(text) == OVER then
  local state, marks, attempts, fence, rank, cost, weight, th, tl, _, _, arrival, came, dead, ended, owner, host, home, lane = unpack_(JOB, text)
  call('SETRANGE', key, 0, pack(JOB, state, marks, attempts, fence, rank, cost, weight, th, tl, a[7], a[9], arrival, came, dead, ended, owner,
                                host, home, #lane, lane))
  call('PEXPIRE', key, math.max(1000, call('PTTL', key) - 345600000))
end
return 1
