-- reap: what hosts ran whose lease has ended goes back to its place, and what callers waited for at homes that are missed is cancelled.
-- Anybody may call it, and two at once.
--
-- ARGV  4 most attempts   5 back-off from the second time on, us, doubled each time   6 a number at random, for its jitter   7 most jobs
--       8 for how long a home has been missed then, us: for all are, where Redis was away
-- Answer {jobs that are back, jobs that are over, hosts and homes that are still to be looked at}
-- O(log hosts + jobs log n)
@open@
@flows@
@over@
@stand@
@come_back@
local most, back, ended = a[7] + 0, 0, 0
for _, host in ipairs(call('ZRANGEBYSCORE', P .. 'H', '-inf', now, 'LIMIT', 0, 4)) do
  call('ZREM', P .. 'H', host)
  call('ZADD', P .. 'H', 0, host)
  local jobs = call('HKEYS', P .. 'h|' .. host)
  for _, id in ipairs(jobs) do
    if back + ended == most then break end
    local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST)
    local attempts = 1 + select(3, unpack_(JOB, text))
    if attempts >= a[4] + 0 then
      over(id, string.sub(text, 1, 2) .. pack('>I2', math.min(attempts, 65535)) .. string.sub(text, 5), 'L', '')
      ended = ended + 1
    else
      local delay = 0  -- the first time it was not its fault
      if attempts > 1 then
        delay = math.min(a[5] * 2 ^ math.min(attempts - 2, 20), 300000000)
        local half = floor(delay / 2)
        delay = delay - half + (a[6] + back) % (half + 1)
      end
      come_back(id, text, attempts, delay)
      back = back + 1
    end
  end
  if call('HLEN', P .. 'h|' .. host) == 0 then call('ZREM', P .. 'H', host) end
  if back + ended == most then break end
end
for _, home in ipairs(call('ZRANGEBYSCORE', P .. 'C', '-inf', now, 'LIMIT', 0, 4)) do
  call('ZREM', P .. 'C', home)
  if call('EXISTS', P .. 'C|' .. home) == 1 then call('ZADD', P .. 'G', now + a[8], home) end
end
for _, home in ipairs(call('ZRANGEBYSCORE', P .. 'G', '-inf', now, 'LIMIT', 0, 4)) do
  for _, id in ipairs(call('SRANDMEMBER', P .. 'C|' .. home, most - back - ended)) do
    call('SREM', P .. 'C|' .. home, id)
    local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST)
    if text ~= '' and string.byte(text) ~= OVER then over(id, text, 'C', '') end
    ended = ended + 1
  end
  if call('EXISTS', P .. 'C|' .. home) == 0 then call('ZREM', P .. 'G', home) end
end
save({'HSET', P .. 's'})
return {back, ended, call('ZCOUNT', P .. 'H', '-inf', now) + call('ZCOUNT', P .. 'G', '-inf', now)}
