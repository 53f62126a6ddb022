-- ending: what is to be told of a job's end, for whoever has the lease of that. The lease begins anew.
--
-- ARGV  4 kind   5 id   6 fence   7 the lease, us   8 most bytes of its result
-- Answer {the new fence, failed attempts, how it ended, its result, when it ended, us}; {''}: this is not its host's to tell
-- O(log n)
@open@
local due = P .. 'd|' .. a[4]
local text = call('GET', P .. 'j|' .. a[5])
if not text or tonumber(call('ZSCORE', due, a[5])) ~= a[6] + 0 or string.byte(text) ~= OVER then return {''} end
local until_us = string.format('%.0f', now + a[7])
call('ZREM', due, a[5])
call('ZADD', due, until_us, a[5])
local _, _, attempts, _, _, _, _, _, _, _, _, _, _, _, ended, _, _, _, _, after = unpack_(JOB, text)
return {until_us, attempts, string.sub(text, after, after), string.sub(text, after + 1, after + a[8]), ended}
