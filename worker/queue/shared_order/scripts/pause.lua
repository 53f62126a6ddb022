-- pause: nothing is taken from the queue, or is again. All else goes on: jobs come in, positions hold, deadlines run; nothing ages.
--
-- ARGV  4 1: it is paused; 0: it goes on
-- Answer 1
-- O(1); O(hosts) as it goes on.
@open@
@stand@
if a[4] == '1' then
  call('HSET', P .. 's', 'p', 1)
else
  call('HDEL', P .. 's', 'p')
  for _, lane in ipairs(call('SMEMBERS', P .. 'n')) do
    while wake(lane) do end
  end
end
return 1
