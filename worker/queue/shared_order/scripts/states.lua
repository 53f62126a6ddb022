-- states: how far jobs are.
--
-- ARGV  4 ids, with a space between two
-- Answer of each: 1 scheduled, 2 waits, 3 delayed, 4 runs, 5 over; 0 it is not there
-- O(jobs)
local states = {}
for id in string.gmatch(ARGV[4], '%S+') do
  local state = redis.call('GETRANGE', KEYS[1] .. 'j|' .. id, 0, 0)
  states[#states + 1] = state == '' and 0 or string.byte(state)
end
return states
