-- sweep: what is not kept any more leaves the lists, and its key is free, some at a time. Each host calls it each second; one in a second does it.
--
-- ARGV  4 most
-- Answer 1: it found many, and is to be called again at once; else 0
-- O(most log n)
@open@
local at = call('HMGET', P .. 's', 'su', 'sa', 'sz')  -- where it goes on, and not before when
if at[2] and now < at[2] + 0 then return 0 end
call('HDEL', P .. 's', 'su', 'sz')
local last, gone = '', 0
for _, member in ipairs(call('ZRANGEBYLEX', P .. 'u', at[1] and '(' .. at[1] or '-', '+', 'LIMIT', 0, a[4])) do
  local id = string.sub(member, 1, 30)
  last = member
  if call('EXISTS', P .. 'j|' .. id) == 0 then
    gone = gone + 1
    call('ZREM', P .. 'u', member)
    call('ZREM', P .. 'u|' .. string.sub(member, 31, 62), id)
    local key = P .. 'k|' .. string.sub(member, 63)
    if #member > 62 and string.sub(call('GET', key) or '', 1, 31) == id .. ' ' then call('DEL', key) end
  end
end
if last ~= '' then call('HSET', P .. 's', 'su', last) end
last = ''
for _, id in ipairs(call('ZRANGEBYLEX', P .. 'z', at[3] and '(' .. at[3] or '-', '+', 'LIMIT', 0, a[4])) do
  last = id
  if call('EXISTS', P .. 'j|' .. id) == 0 then call('ZREM', P .. 'z', id) end
end
if last ~= '' then call('HSET', P .. 's', 'sz', last) end
local more = gone * 2 > a[4] + 0
call('HSET', P .. 's', 'sa', string.format('%.0f', now + (more and 0 or 1000000)))
for _, hook in ipairs(call('HKEYS', P .. 'N')) do
  if call('HGET', P .. 'N', hook) + 0 < now then
    call('HDEL', P .. 'N', hook)
    call('UNLINK', P .. 'd|n|' .. hook, P .. 'D|n|' .. hook)
  end
end
return more and 1 or 0
