-- reset: nothing is used of a key any more: the operator's word. That the key is known stays, so that no host brings back what it heard
-- of it before; and so does what hosts hold of a bucket.
--
-- KEYS  1 a bucket (lease.lua), a window (window.lua) or a log (log.lua)
-- ARGV  1 length of a log, ms
-- Answer 1; 0: there was none
-- O(1); O(units) of a log.
local call, k = redis.call, KEYS[1]
local kind = call('TYPE', k).ok
if kind == 'hash' and call('HEXISTS', k, 't') == 1 then
  call('HSET', k, 't', 0)
elseif kind == 'hash' and call('HEXISTS', k, 'c') == 1 then
  call('HSET', k, 'c', 0, 'q', 0)
elseif kind == 'zset' then
  call('DEL', k)
  call('ZADD', k, 0, 'reset')
  call('PEXPIRE', k, ARGV[1] + 1000)
else
  return 0
end
return 1
