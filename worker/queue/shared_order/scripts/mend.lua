-- mend: a job's end that was told holds, whatever Redis has lost since.
--
-- ARGV  4 id   5 how it ended (look.lua)   6 its result   7 how long that is kept, ms (0: as long as any)   8 fence of the taking that ended so (0: none did)
-- Answer 1 it is over by this; -1 it was over; 0 it was dropped since, or has begun anew
-- O(log n)
@open@
@flows@
@over@
local text = call('GETRANGE', P .. 'j|' .. a[4], 0, JOB_MOST)
if text == '' then
  if call('EXISTS', P .. 'q|' .. a[4]) == 1 then return 0 end
  local zero = pack('>I8', 0)
  call('SET', P .. 'j|' .. a[4], pack(JOB, OVER, 0, 0, 0, zero, 1, 1, 0, 0, 0, 0, 0, now, NEVER, 0, zero, NOBODY, NOBODY, 0, '') .. a[5] .. a[6],
       'PX', a[7] ~= '0' and a[7] or a[3])
  return 1
end
local state, marks, _, fence, _, _, _, _, _, _, _, _, _, _, _, _, host = unpack_(JOB, text)
if state == OVER then return -1 end
if floor(marks / 32) % 2 == 1 and fence > a[8] + 0 and a[8] ~= '0' then return 0 end
over(a[4], text, a[5], a[6], a[7])
save({'HSET', P .. 's'})
if state == RUNNING and (a[5] == 'D' or a[5] == 'X') then call('PUBLISH', P .. 'c|' .. host, 'stop ' .. a[4] .. ' ' .. fence) end
return 1
