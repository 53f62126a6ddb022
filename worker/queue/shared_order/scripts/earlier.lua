-- earlier: which job last completed of those that ask the same, for requests that an earlier answer may do; or that one has.
--
-- ARGV  4 what was asked, hashed   5 the job that has completed (empty: it is asked which)   6 how long that is known, ms
-- Answer the job; '': there is none
-- O(1)
@open@
if a[5] == '' then return call('GET', P .. 'y|' .. a[4]) or '' end
call('SET', P .. 'y|' .. a[4], a[5], 'PX', a[6])
return a[5]
