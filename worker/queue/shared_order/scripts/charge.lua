-- charge: what a home's edge has charged for promised jobs under limits in Redis, for whoever settles it should the home not return. What
-- is there already stays.
--
-- ARGV  4 home   then of each job   5 id   6 its receipt
-- Answer 1
-- O(jobs log n)
@open@
call('ZREM', P .. 'M', a[4])
call('ZADD', P .. 'M', now + HOME_STAYS, a[4])
for i = 5, #a, 2 do
  if call('EXISTS', P .. 'm|' .. a[i]) == 0 then
    call('SET', P .. 'm|' .. a[i], a[4] .. a[i + 1], 'PX', CHARGE_LASTS)
    call('ZADD', P .. 'M|' .. a[4], 0, a[i])
  end
end
return 1
