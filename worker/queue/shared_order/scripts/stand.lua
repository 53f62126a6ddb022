-- stand: jobs may be taken, at the places they have: `line` is ZADD, the lane's key, and of each 0 and its member. Hosts that wait for
-- such are woken. O(log n) each
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
local lanes  -- what n has, once it is known here
local function all_lanes()
  lanes = lanes or call('SMEMBERS', P .. 'n')
  return lanes
end
local asleep = {}  -- lanes for which no host waits
local function wake(lane)
  if asleep[lane] then return end
  local host
  repeat host = call('SPOP', P .. 'w|' .. lane) until not host or call('PUBLISH', P .. 'c|' .. host, 'wake ' .. lane) > 0
  asleep[lane] = not host
  return host
end
local function stand(lane, line)
  call(unpack(line))
  for _ = 3, #line, 2 do  -- a host for each
    local host
    for _, each in ipairs(lane == '' and all_lanes() or {lane}) do
      host = wake(each)
      if host then break end
    end
    if not host then break end
  end
  if aging > 0 and call('ZADD', P .. 'a', 'NX', now + aging, lane) == 1 then soon(now + aging) end
end
