-- position: where jobs stand among those that compete for the same workers.
--
-- ARGV  4 ids, with spaces between
-- Answer of each: 1 is the next to start; 0 it runs, or is scheduled; -1 it is over, or not there
-- O(log n) each for every lane that it competes with.
@open@
@stand@
local out, lanes = {}
for id in string.gmatch(a[4], '%S+') do
  local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST)
  local at = -1
  if text ~= '' then
    local state, before, _, _, rank, _, _, th, tl, _, _, arrival, _, _, _, _, _, _, lane = unpack_(JOB, text)
    if state == WAITING or state == DELAYED then
      local here = place(before, rank, th, tl, arrival)
      local line = P .. 'l|' .. lane
      at = 1 + (state == WAITING and call('ZRANK', line, here .. id) or call('ZLEXCOUNT', line, '-', '(' .. here))
      if lane == '' then lanes = lanes or call('SMEMBERS', P .. 'n') end
      for _, other in ipairs(lane == '' and lanes or {''}) do
        if other ~= lane then at = at + call('ZLEXCOUNT', P .. 'l|' .. other, '-', '(' .. here) end
      end
    else
      at = state == OVER and -1 or 0
    end
  end
  out[#out + 1] = at
end
return out
