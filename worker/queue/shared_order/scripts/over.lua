-- over: a job has ended, wherever it is; `text` is what lies at j|ID. It is kept with its result, or with its body where there is none;
-- who must know is told, and what is to be told of it later stands in line for that. `how`: as look.lua says. `life`, unless it is '0':
-- how long it is kept, in ms. O(log n)
local function over(id, text, how, result, life)
  local state, marks, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, host, home, lane,
    after = unpack_(JOB, text)
  if dead < NEVER or state == SCHEDULED or state == DELAYED then call('ZREM', P .. 't', id) end
  if state == RUNNING then
    call('HDEL', P .. 'h|' .. host, id)
  else
    if state == WAITING then
      call('ZREM', P .. 'l|' .. lane, (marks % 2 == 1 and pack('>I8I8I4I4', 0, arrival, th, tl) or rank .. pack('>I4I4I8', th, tl, arrival)) .. id)
    end
    call('HINCRBY', P .. 's', 'w', -1)
    if call('HINCRBY', P .. 'o', owner, -1) <= 0 then call('HDEL', P .. 'o', owner) end
  end
  if state ~= SCHEDULED then  -- FairShare::withdraw() and leave()
    local class = rank .. lane
    local flows, idle = P .. 'f|' .. class, P .. 'i|' .. class
    local jobs, vh, vl = unpack_(CLASS, call('HGET', P .. 's', class))
    if jobs == 1 then
      call('HDEL', P .. 's', class)
      call('UNLINK', flows, idle)
    else
      local fj, fw, last, rest, fh, fl, sh, sl = unpack_(FLOW, call('HGET', flows, owner))
      if state ~= RUNNING then
        fw = fw - 1
        if fw == 0 then fh, fl = sh, sl end
      end
      call('HSET', P .. 's', class, pack(CLASS, jobs - 1, vh, vl))
      if fj == 1 and not (fh > vh or fh == vh and fl > vl) then
        call('HDEL', flows, owner)
      else
        call('HSET', flows, owner, pack(FLOW, fj - 1, fw, last, rest, fh, fl, sh, sl))
        if fj == 1 then
          call('ZADD', idle, fh * B32 + fl, owner)
          -- Those whose end V has passed begin anew at V in any case. Each that comes in is followed by up to two that go.
          for _, other in ipairs(call('ZRANGEBYSCORE', idle, '-inf', vh * B32 + vl, 'LIMIT', 0, 2)) do
            local _, _, _, _, oh, ol = unpack_(FLOW, call('HGET', flows, other))
            if not (oh > vh or oh == vh and ol > vl) then
              call('ZREM', idle, other)
              call('HDEL', flows, other)
            end
          end
        end
      end
    end
  end
  life = life and life ~= '0' and life + 0 or a[3] + 0
  if result == '' or marks > 1 or how == 'X' then
    local body = call('GETRANGE', P .. 'j|' .. id, after - 1, -1)
    if how == 'X' or how == 'L' then call('ZADD', P .. 'z', 0, id) end
    if result ~= '' and (how == 'X' or floor(marks / 16) % 2 == 1) then call('SET', P .. 'b|' .. id, body, 'PX', life) end
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
  if home ~= NOBODY then call('PUBLISH', P .. 'c|' .. home, 'over ' .. id) end
  if state == RUNNING and how ~= 'D' and how ~= 'X' then call('PUBLISH', P .. 'c|' .. host, 'stop ' .. id .. ' ' .. fence) end
end
