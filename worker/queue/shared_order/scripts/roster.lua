-- roster: a host says what it serves, and hears what all serve.
--
-- ARGV  4 host   5 what it serves   6 for how long that holds, us   7 the hosts' secret, unless they have one
-- Answer {the secret, what each host serves...}
-- O(hosts)
@open@
call('HDEL', P .. 'r', a[4])
call('HSET', P .. 'r', a[4], pack('>I8', now + a[6]) .. a[5])
call('SET', P .. 'x', a[7], 'NX')
local out = {call('GET', P .. 'x')}
local all = call('HGETALL', P .. 'r')
for i = 1, #all, 2 do
  if unpack_('>I8', all[i + 1]) < now then call('HDEL', P .. 'r', all[i])
  else out[#out + 1] = string.sub(all[i + 1], 9) end
end
return out
