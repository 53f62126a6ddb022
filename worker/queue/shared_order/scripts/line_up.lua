-- begins: where a newcomer's tag would be: its two halves; whether the owner's flow goes on there; the jobs and V of its class; its flow.
-- line_up: it gets that tag, and an end, as by FairShare::arrive(). `known` is what s has of its class, and the last answer what it is to
-- have. O(1); O(lanes) where it begins a class.
local function begins(lane, owner, rank, known)
  local jobs, vh, vl = 0, 0, 0
  if known then
    jobs, vh, vl = unpack_(CLASS, known)
  else  -- it begins with those it competes with, for their tags will be compared
    for _, other in ipairs(lane == '' and call('SMEMBERS', P .. 'n') or {''}) do
      local c = call('HGET', P .. 's', rank .. other)
      if c then
        local _, h, l = unpack_(CLASS, c)
        if h > vh or h == vh and l > vl then vh, vl = h, l end
      end
    end
  end
  local had = call('HGET', P .. 'f|' .. rank .. lane, owner)
  if had then
    local _, fw, _, _, eh, el = unpack_(FLOW, had)
    if fw > 0 or eh > vh or eh == vh and el > vl then return eh, el, true, jobs, vh, vl, had end
  end
  return vh, vl, false, jobs, vh, vl, had
end
local function line_up(lane, owner, rank, cost, weight, known)
  if not known then call('SADD', P .. 'n', lane) end
  local th, tl, goes_on, jobs, vh, vl, had = begins(lane, owner, rank, known)
  local fj, fw, last, rest, eh, el, sh, sl = 0, 0, 1, 0, 0, 0, 0, 0
  if had then fj, fw, last, rest, eh, el, sh, sl = unpack_(FLOW, had) end
  if weight ~= last or not goes_on then rest = 0 end
  local scaled = cost * 65536 + rest
  local step = floor(scaled / weight)
  rest = scaled - step * weight
  el = tl + step
  eh = th + floor(el / B32)
  el = el % B32
  if eh >= 2147483648 then eh, el = 2147483647, 4294967295 end
  local class = rank .. lane
  if had and fj == 0 then call('ZREM', P .. 'i|' .. class, owner) end
  call('HSET', P .. 'f|' .. class, owner, pack(FLOW, fj + 1, fw + 1, weight, rest, eh, el, sh, sl))
  return th, tl, eh, el, pack(CLASS, jobs + 1, vh, vl)
end
