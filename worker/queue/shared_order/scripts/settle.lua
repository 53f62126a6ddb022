-- settle: a home is about to settle what was charged for jobs that are over: nobody else does so from now on. It may be said again.
--
-- ARGV  4 ids, with a space between two
-- Answer of each: 1 it is the home's to settle; 2 it was before, or nobody else knows of it; 0 another host has settled it
-- O(jobs log n)
@open@
local out = {}
for id in string.gmatch(a[4], '%S+') do
  local key = P .. 'm|' .. id
  local charged = call('GETRANGE', key, 0, 7)
  out[#out + 1] = charged == 'T' and 0 or #charged == 8 and 1 or 2
  if charged ~= 'T' then
    call('ZREM', P .. 'M|' .. charged, id)
    call('SET', key, 'S', 'PX', 60000)  -- what was said earlier may come later
  end
end
return out
