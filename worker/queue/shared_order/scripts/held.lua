-- held: what a host runs, as Redis thinks.
--
-- ARGV  4 host
-- Answer {id, fence, ...}
-- O(jobs)
@open@
return call('HGETALL', P .. 'h|' .. a[4])
