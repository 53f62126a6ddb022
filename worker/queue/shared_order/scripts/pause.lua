-- pause: nothing is taken from the queue, or is again. All else goes on: jobs come in, positions hold, deadlines run; nothing ages.
--
-- ARGV  4 1: it is paused; 0: it goes on
-- Answer 1; each host hears "paused" or "resumed"
-- O(hosts)
@open@
@stand@
call('HDEL', P .. 's', 'p')
if a[4] == '1' then call('HSET', P .. 's', 'p', 1) end
for _, host in ipairs(call('ZRANGE', P .. 'H', 0, -1)) do call('PUBLISH', P .. 'c|' .. host, a[4] == '1' and 'paused' or 'resumed') end
if a[4] ~= '1' then
  for _, lane in ipairs(call('SMEMBERS', P .. 'n')) do
    while wake(lane) do end
  end
end
return 1
