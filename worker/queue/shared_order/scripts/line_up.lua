-- begins: where a newcomer's tag would be: its two halves; whether the owner's flow goes on there; its class; its flow; V.
-- line_up: it gets that tag, and an end, as by FairShare::arrive(). O(1); O(lanes) where it begins a class.
local function begins(lane, owner, rank)
  local class = class_of(rank .. lane)
  local vh, vl = class[2], class[3]
  if class[1] == 0 then  -- it begins with those it competes with, for their tags will be compared
    for _, other in ipairs(lane == '' and all_lanes() or {''}) do
      local its = class_of(rank .. other)
      if its[1] > 0 and (its[2] > vh or its[2] == vh and its[3] > vl) then vh, vl = its[2], its[3] end
    end
  end
  local flow = flow_of(rank .. lane, owner)
  local eh, el = flow[5], flow[6]
  if flow[2] > 0 or eh > vh or eh == vh and el > vl then return eh, el, true, class, flow, vh, vl end
  return vh, vl, false, class, flow, vh, vl
end
local function line_up(lane, owner, rank, cost, weight)
  local th, tl, goes_on, class, flow, vh, vl = begins(lane, owner, rank)
  if class[1] == 0 then
    call('SADD', P .. 'n', lane)
    lanes, class[2], class[3] = nil, vh, vl
  end
  local rest = flow[4]
  if weight ~= flow[3] or not goes_on then rest = 0 end
  local scaled = cost * 65536 + rest
  local step = floor(scaled / weight)
  local el = tl + step
  local eh = th + floor(el / B32)
  el = el % B32
  if eh >= 2147483648 then eh, el = 2147483647, 4294967295 end
  if flow[1] == 0 and (flow[5] > 0 or flow[6] > 0) then call('ZREM', P .. 'i|' .. rank .. lane, owner) end
  class[1], class.changed = class[1] + 1, true
  flow[1], flow[2], flow[3], flow[4], flow[5], flow[6] = flow[1] + 1, flow[2] + 1, weight, scaled - step * weight, eh, el
  flow.changed, flow.gone = true, nil
  return th, tl, eh, el
end
