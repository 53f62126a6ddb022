-- stand: a job may be taken, at the place it has. A host that waits for such is woken. `lanes`: what n has, if that is known. O(log n)
local next_due  -- what s has as d, once it is known here
local function soon(at)
  next_due = next_due or tonumber(call('HGET', P .. 's', 'd')) or NEVER
  if at < next_due then
    next_due = at
    call('HSET', P .. 's', 'd', at)
  end
end
local function place(before, rank, th, tl, arrival)
  return before % 2 == 1 and pack('>I8I8I4I4', 0, arrival, th, tl) or rank .. pack('>I4I4I8', th, tl, arrival)
end
local function wake(lane)
  local host
  repeat host = call('SPOP', P .. 'w|' .. lane) until not host or call('PUBLISH', P .. 'c|' .. host, 'wake ' .. lane) > 0
  return host
end
local function stand(lane, member, lanes)
  call('ZADD', P .. 'l|' .. lane, 0, member)
  if lane ~= '' then
    wake(lane)
  else
    for _, each in ipairs(lanes or call('SMEMBERS', P .. 'n')) do
      if wake(each) then break end
    end
  end
  if aging > 0 and call('ZADD', P .. 'a', 'NX', now + aging, lane) == 1 then soon(now + aging) end
end
