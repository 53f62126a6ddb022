-- tell: a host takes some of the ends that are to be told, by a lease: until that ends no other host gets them. Its fence is the lease's
-- end. What belongs to jobs that are not kept any more is dropped.
--
-- ARGV  4 kind   5 most   6 the lease, us   7 1: the kind is a hook, and this host has it   8 URLs that said so since want no more, us
--       9 how many bytes are told of each job's result (0: none)
-- Answer {us until the next is due (-1: none is), how many there are, {URL, when it said so...}, {id, fence, tries so far, owner's 8
--        bytes, failed attempts, how it ended, when, us, its result...}}
-- O(n log n)
@open@
local due, tries = P .. 'd|' .. a[4], P .. 'D|' .. a[4]
local until_us, out = string.format('%.0f', now + a[6]), {}
if a[7] == '1' then
  local name = string.sub(a[4], 3)
  call('HDEL', P .. 'N', name)
  call('HSET', P .. 'N', name, string.format('%.0f', now + 86400000000))
end
for _, id in ipairs(call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, a[5])) do
  local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST + a[9])
  call('ZREM', due, id)
  if text == '' or string.byte(text) ~= OVER then
    call('HDEL', tries, id)
  else
    call('ZADD', due, until_us, id)
    local _, _, attempts, _, _, _, _, _, _, _, _, _, _, _, ended, owner, _, _, _, after = unpack_(JOB, text)
    for _, told in ipairs({id, until_us, tonumber(call('HGET', tries, id)) or 0, owner, attempts, string.sub(text, after, after), ended,
                           string.sub(text, after + 1, after + a[9])}) do out[#out + 1] = told end
  end
end
local first = call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
return {first and math.max(0, first - now) or -1, call('ZCARD', due),
        call('ZRANGEBYSCORE', P .. 'v', '(' .. a[8], '+inf', 'WITHSCORES', 'LIMIT', 0, 100), out}
