-- cancel: its owner or the operator wants a job no more, wherever it is. Who runs it is told.
--
-- ARGV  4 id   5 its result
-- Answer 1 it has ended by this; -1 it was over, or is not there
-- O(log n)
@open@
@flows@
@over@
local text = call('GETRANGE', P .. 'j|' .. a[4], 0, JOB_MOST)
if text == '' or string.byte(text) == OVER then return -1 end
over(a[4], text, 'C', a[5])
save({'HSET', P .. 's'})
return 1
