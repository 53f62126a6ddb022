-- stale: results that are to be removed by now. Several hosts may be told of the same.
--
-- ARGV  4 most
-- Answer their names
-- O(log n + names)
@open@
return call('ZRANGEBYSCORE', P .. 'g', '-inf', now, 'LIMIT', 0, a[4])
