-- renew: a host says that it lives, each second.
--
-- ARGV  4 host: unlike any other, and any that was before   5 for how long, us   6 1: it joins; 0: it has joined; -1: it leaves, and what
--       it still runs is taken back at once   7 the home that it is to callers, always the same (empty: to none)
-- Answer {1, how many jobs it runs, hosts, when the queue was made, us until something is due (-1: nothing is)}; {0}: its jobs are
--        taken back, or Redis does not know it: it must stop all it runs, and join by another name
-- O(log hosts)
@open@
local lease = call('ZSCORE', P .. 'H', a[4])
if a[6] == '0' and (not lease or lease == '0') then return {0} end
if a[6] == '1' and lease then return {0} end
call('ZREM', P .. 'H', a[4])
if a[7] ~= '' then
  call('ZREM', P .. 'G', a[7])
  call('ZADD', P .. 'C', a[6] == '-1' and now or now + a[5], a[7])
  call('ZADD', P .. 'M', 'XX', now + HOME_STAYS, a[7])
end
local made = call('HGET', P .. 's', 'b')
if not made then
  made = string.format('%.0f', now)
  call('HSET', P .. 's', 'b', made)
end
local runs = call('HLEN', P .. 'h|' .. a[4])
if a[6] ~= '-1' then
  call('ZADD', P .. 'H', now + a[5], a[4])
elseif runs > 0 then
  call('ZADD', P .. 'H', 0, a[4])
end
local due = call('HGET', P .. 's', 'd')
return {1, runs, call('ZCARD', P .. 'H'), made + 0, due and math.max(0, due - now) or -1}
