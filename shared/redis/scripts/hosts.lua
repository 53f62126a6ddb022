-- hosts: who shares the limits. Each host calls it every second; it is also how a connection shows that Redis takes writes.
--
-- KEYS  1 zset of hosts, by when each is gone unless it calls again, ms by Redis's clock
-- ARGV  1 now, ms (0: Redis's own; a test brings its own)   2 host   3 for how long it stays, ms (0: it leaves)
-- Answer how many there are
-- O(log hosts)
local now = ARGV[1] + 0
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if ARGV[3] + 0 > 0 then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
