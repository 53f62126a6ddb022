-- due: what is due happens, as by Scheduler::advance_to(): the scheduled come in, back-offs end, deadlines end jobs, lanes age. At most 64
-- things in one call, so that nobody waits long for it; what is left comes with the next. O(log n) each.
local left, ended = 64, {}

-- Scheduler::promote_one(): of the heads of a lane's lower classes the one that has waited longest goes before all, if that is longer
-- than `aging`. When to look again.
local function promote(lane)
  local s = call('HMGET', P .. 's', 'h|' .. lane, 'a|' .. lane, 'k', 'p')
  call('HDEL', P .. 's', 'h|' .. lane)
  local line, taken = P .. 'l|' .. lane, tonumber(s[3]) or 0
  if s[4] or unpack_('>I8', call('ZRANGE', line, 0, 0)[1]) == 0 or taken - (s[2] or 0) < 16 then return now + aging end
  local top = tonumber(s[1]) or NEVER
  local lanes = {lane, ''}
  if lane == '' then lanes = call('SMEMBERS', P .. 'n') end
  for _, each in ipairs(lanes) do
    local first = call('ZRANGEBYLEX', P .. 'l|' .. each, '[' .. pack('>I8', 1), '+', 'LIMIT', 0, 1)[1]
    if first then top = math.min(top, (unpack_('>I8', first))) end
  end
  local rank, oldest, member, text = top
  while true do
    local head = call('ZRANGEBYLEX', line, '[' .. pack('>I8', rank + 1), '+', 'LIMIT', 0, 1)[1]
    if not head then break end
    rank = unpack_('>I8', head)
    local its = call('GETRANGE', P .. 'j|' .. string.sub(head, 25), 0, JOB_MOST)
    local came = select(13, unpack_(JOB, its))
    if not oldest or came < oldest then oldest, member, text = came, head, its end
  end
  if not oldest then return now + aging end
  if oldest + aging > now then return oldest + aging end
  local state, before, attempts, fence, its_rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, host, home = unpack_(JOB, text)
  call('ZREM', line, member)
  call('ZADD', line, 0, pack('>I8I8I4I4', 0, arrival, th, tl) .. string.sub(member, 25))
  call('SETRANGE', P .. 'j|' .. string.sub(member, 25), 0, pack(JOB, state, before + 1, attempts, fence, its_rank, cost, weight, th, tl, eh, el,
                                                                arrival, came, dead, ends, owner, host, home, #lane, lane))
  call('HSET', P .. 's', 'a|' .. lane, taken)
  return now + aging
end

while left > 0 do
  local id = call('ZRANGEBYSCORE', P .. 't', '-inf', now, 'LIMIT', 0, 1)[1]
  if not id then break end
  left = left - 1
  local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST)
  local state, before, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, host, home, lane =
    unpack_(JOB, text)
  if dead <= now then
    over(id, text, 'E', '')
    ended[#ended + 1] = id
  else
    call('ZREM', P .. 't', id)
    if state == SCHEDULED then
      arrival = call('HINCRBY', P .. 's', 'n', 1)
      th, tl, eh, el = line_up(lane, owner, rank, cost, weight)
    end
    stand(lane, {'ZADD', P .. 'l|' .. lane, 0, place(before, rank, th, tl, arrival) .. id})
    if dead < NEVER then call('ZADD', P .. 't', dead, id) end
    call('SETRANGE', P .. 'j|' .. id, 0, pack(JOB, WAITING, before, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came,
                                              dead, ends, owner, host, home, #lane, lane))
  end
end
while left > 0 do
  local lane = call('ZRANGEBYSCORE', P .. 'a', '-inf', now, 'LIMIT', 0, 1)[1]
  if not lane then break end
  left = left - 1
  if aging <= 0 or call('EXISTS', P .. 'l|' .. lane) == 0 then
    call('ZREM', P .. 'a', lane)
  else
    call('ZADD', P .. 'a', math.max(promote(lane), now + 1), lane)
  end
end
save({'HSET', P .. 's'})
local t, g = call('ZRANGE', P .. 't', 0, 0, 'WITHSCORES')[2], call('ZRANGE', P .. 'a', 0, 0, 'WITHSCORES')[2]
call('HDEL', P .. 's', 'd')
next_due = math.min(tonumber(t) or NEVER, tonumber(g) or NEVER)
if next_due < NEVER then call('HSET', P .. 's', 'd', string.format('%.0f', next_due)) end
