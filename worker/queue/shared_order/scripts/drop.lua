-- drop: a job that is over is kept no more.
--
-- ARGV  4 id
-- Answer 1; 0: it is not over, or not there
-- O(log n)
@open@
local text = call('GETRANGE', P .. 'j|' .. a[4], 0, 0)
if text == '' or string.byte(text) ~= OVER then return 0 end
call('ZREM', P .. 'z', a[4])
call('UNLINK', P .. 'j|' .. a[4], P .. 'b|' .. a[4])
call('SET', P .. 'q|' .. a[4], '', 'PX', 120000)
return 1
