-- roster: a host says what it serves, and hears what all say, and how the queue stands.
--
-- ARGV  4 host   5 what it says   6 for how long that holds, us   7 the hosts' secret, unless they have one   8 what is said back on its
--       channel, c|HOST; empty: nothing   9 the HOST there
-- Answer {the secret; 1 while the queue is paused; jobs that wait, the scheduled too; {of each lane where jobs stand: its model, how many,
--        us since the first of them came}; {of each host that takes jobs: its name, us until its lease ends, jobs that it runs}; {of each
--        host that says something: for how many us that holds yet (below 0: it has not said more since), what it says}}
-- Of those who say no more the first GONE_BYTES are kept for GONE_US, so that it is known who was there.
-- O(hosts + lanes)
@open@
local GONE_US, GONE_BYTES, MOST_GONE = 600000000, 512, 200
call('HDEL', P .. 'r', a[4])
call('HSET', P .. 'r', a[4], pack('>I8', now + a[6]) .. a[5])
call('SET', P .. 'x', a[7], 'NX')
if a[8] ~= '' then call('PUBLISH', P .. 'c|' .. a[9], a[8]) end

local lanes, leases, said, gone = {}, {}, {}, 0
for _, lane in ipairs(call('SMEMBERS', P .. 'n')) do
  local first = call('ZRANGE', P .. 'l|' .. lane, 0, 0)[1]
  if first then
    local came = select(13, unpack_(JOB, call('GETRANGE', P .. 'j|' .. string.sub(first, 25), 0, JOB_MOST)))
    local n = #lanes
    lanes[n + 1], lanes[n + 2], lanes[n + 3] = lane, call('ZCARD', P .. 'l|' .. lane), math.max(0, now - came)
  end
end
local hosts = call('ZRANGE', P .. 'H', 0, -1, 'WITHSCORES')
for i = 1, #hosts, 2 do
  local n = #leases
  leases[n + 1], leases[n + 2], leases[n + 3] = hosts[i], math.max(0, hosts[i + 1] - now), call('HLEN', P .. 'h|' .. hosts[i])
end
local all = call('HGETALL', P .. 'r')
for i = 1, #all, 2 do
  local left, text = unpack_('>I8', all[i + 1]) - now, all[i + 1]
  gone = left < 0 and gone + 1 or gone
  if left < -GONE_US or gone > MOST_GONE then
    call('HDEL', P .. 'r', all[i])
  else
    if left < 0 and #text > 8 + GONE_BYTES then
      text = string.sub(text, 1, 8 + GONE_BYTES)
      call('HDEL', P .. 'r', all[i])
      call('HSET', P .. 'r', all[i], text)
    end
    local n = #said
    said[n + 1], said[n + 2] = left, string.sub(text, 9)
  end
end
local s = call('HMGET', P .. 's', 'p', 'w')
return {call('GET', P .. 'x'), s[1] and 1 or 0, (tonumber(s[2]) or 0), lanes, leases, said}
