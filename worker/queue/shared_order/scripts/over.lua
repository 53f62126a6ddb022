-- over: a job has ended, wherever it is; `text` is what lies at j|ID. It is kept with its result, or with its body where there is none;
-- who must know is told, and what is to be told of it later stands in line for that. `how`: as look.lua says. `life`, unless it is '0':
-- how long it is kept, in ms. `is_off`: it ran, and is neither among its host's jobs any more nor in t. O(log n)
local function leave(flow, vh, vl)  -- unless its end is still to come
  if flow[5] > vh or flow[5] == vh and flow[6] > vl then return false end
  flow[1], flow[2], flow[3], flow[4], flow[5], flow[6], flow[7], flow[8] = 0, 0, 1, 0, 0, 0, 0, 0
  flow.changed, flow.gone = true, true
  return true
end
local function over(id, text, how, result, life, is_off)
  local state, marks, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, host, home, lane,
    after = unpack_(JOB, text)
  if not is_off and (dead < NEVER or state == SCHEDULED or state == DELAYED) then call('ZREM', P .. 't', id) end
  if state == RUNNING then
    if not is_off then call('HDEL', P .. 'h|' .. host, id) end
  else
    if state == WAITING then
      call('ZREM', P .. 'l|' .. lane, (marks % 2 == 1 and pack('>I8I8I4I4', 0, arrival, th, tl) or rank .. pack('>I4I4I8', th, tl, arrival)) .. id)
    end
    call('HINCRBY', P .. 's', 'w', -1)
    if marks % 128 >= 64 and call('HINCRBY', P .. 'o', owner, -1) <= 0 then call('HDEL', P .. 'o', owner) end
  end
  if state ~= SCHEDULED then  -- FairShare::withdraw() and leave()
    local class, name = class_of(rank .. lane), rank .. lane
    if class[1] <= 1 then
      close(name)
    else
      local vh, vl, flow = class[2], class[3], flow_of(name, owner)
      flow[1] = flow[1] - 1
      if state ~= RUNNING then
        flow[2] = flow[2] - 1
        if flow[2] == 0 then flow[5], flow[6] = flow[7], flow[8] end
      end
      class[1], class.changed, flow.changed = class[1] - 1, true, true
      if flow[1] == 0 and not leave(flow, vh, vl) then
        local idle = P .. 'i|' .. name
        call('ZADD', idle, flow[5] * B32 + flow[6], owner)
        -- Those whose end V has passed begin anew at V in any case. Each that comes in is followed by up to two that go.
        for _, other in ipairs(call('ZRANGEBYSCORE', idle, '-inf', vh * B32 + vl, 'LIMIT', 0, 2)) do
          if leave(flow_of(name, other), vh, vl) then call('ZREM', idle, other) end
        end
      end
    end
  end
  life = life and life ~= '0' and life + 0 or a[3] + 0
  if result == '' or marks % 64 > 1 or how == 'X' then
    local keeps = how == 'X' or floor(marks / 16) % 2 == 1
    local body = (result == '' or keeps) and call('GETRANGE', P .. 'j|' .. id, after - 1, -1)
    if how == 'X' or how == 'L' then call('ZADD', P .. 'z', 0, id) end
    if result ~= '' and keeps then call('SET', P .. 'b|' .. id, body, 'PX', life) end
    if floor(marks / 2) % 2 == 1 then
      call('ZADD', P .. 'd|w', now, id)
      life = life + 345600000  -- it is kept while that is tried
    end
    if floor(marks / 4) % 2 == 1 then
      for _, hook in ipairs(call('HKEYS', P .. 'N')) do call('ZADD', P .. 'd|n|' .. hook, now, id) end
    end
    if floor(marks / 8) % 2 == 1 then call('ZADD', P .. 'd|e', now, id) end
    if result == '' then result = body end
  end
  call('SET', P .. 'j|' .. id, pack(JOB, OVER, marks, attempts, fence, rank, cost, weight, th, tl, 0, 0, arrival, came, dead, now, owner,
                                    host, home, #lane, lane) .. how .. result, 'PX', life)
  call('PUBLISH', P .. 'e|' .. id, 'over')
  if marks >= 128 then call('SREM', P .. 'C|' .. home, id) end
  if home ~= NOBODY then told[home] = (told[home] or '') .. ' ' .. id end
  if state == RUNNING and how ~= 'D' and how ~= 'X' then call('PUBLISH', P .. 'c|' .. host, 'stop ' .. id .. ' ' .. fence) end
end
