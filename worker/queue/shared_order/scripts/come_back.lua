-- come_back: what ran waits again, at its old place, at once or after `delay` us. O(log n)
local function come_back(id, text, attempts, delay)
  local _, before, _, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, host, home, lane = unpack_(JOB, text)
  call('HDEL', P .. 'h|' .. host, id)
  call('HINCRBY', P .. 's', 'w', 1)
  if before % 128 >= 64 then call('HINCRBY', P .. 'o', owner, 1) end
  local flow = flow_of(rank .. lane, owner)
  flow[2], flow.changed = flow[2] + 1, true
  local state = WAITING
  if delay > 0 then
    state = DELAYED
    local at = math.min(dead, now + delay)
    call('ZADD', P .. 't', at, id)
    soon(at)
  else
    stand(lane, {'ZADD', P .. 'l|' .. lane, 0, place(before, rank, th, tl, arrival) .. id})
  end
  call('SETRANGE', P .. 'j|' .. id, 0, pack(JOB, state, before, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends,
                                            owner, NOBODY, home, #lane, lane))
end
