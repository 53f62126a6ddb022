-- note: when a result that lies elsewhere is to be removed.
--
-- ARGV  4 its name   5 after how long, ms (0: it is removed)
-- Answer 1
-- O(log n)
@open@
call('ZREM', P .. 'g', a[4])
if a[5] ~= '0' then call('ZADD', P .. 'g', now + a[5] * 1000, a[4]) end
return 1
