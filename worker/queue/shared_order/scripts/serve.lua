-- serve: what a host has finished is over, and it gets the next jobs, in one trip. Either part may be empty.
--
-- ARGV  4 host   5 lane of its workers   6 most jobs to take   then for each job that it has finished: its id, fence, result,
--       how long that is kept, in ms (0: as long as any), how it ended (D, or X: it is a dead letter)
-- Answer {whether the host is known, us until something is due (-1: nothing is), {of each finished job 1 (it has ended by this), 0 (it is
--        not this host's any more: the result is dropped), -1 (it was over, or is not there)}, {id, fence, failed attempts, came,
--        deadline (0: none), owner, lane, home (empty: none), body of each job it has now}}
-- O(jobs log n): of each of two lanes so many are looked at as are taken.
@open@
@flows@
@over@
local host, lane, most = a[4], a[5], a[6] + 0
local s = call('HMGET', P .. 's', 'd', 'p', 'k', 'w', 'h|' .. lane, 'h|')
if s[1] and now >= s[1] + 0 then
  @stand@
  @line_up@
  @due@
  s = call('HMGET', P .. 's', 'd', 'p', 'k', 'w', 'h|' .. lane, 'h|')
end
local done, gone, undue, texts = {}, {'HDEL', P .. 'h|' .. host}, {'ZREM', P .. 't'}, {}
for i = 7, #a, 5 do
  local text = call('GETRANGE', P .. 'j|' .. a[i], 0, JOB_MOST)
  local is = -1
  if text ~= '' then
    local state, _, _, fence, _, _, _, _, _, _, _, _, _, dead, _, _, its_host = unpack_(JOB, text)
    is = (state == OVER or texts[a[i]]) and -1 or state == RUNNING and its_host == host and fence == a[i + 1] + 0 and 1 or 0
    if is == 1 then
      texts[a[i]] = text
      gone[#gone + 1] = a[i]
      if dead < NEVER then undue[#undue + 1] = a[i] end
    end
  end
  done[#done + 1] = is
end
if gone[3] then call(unpack(gone)) end
if undue[3] then call(unpack(undue)) end
for i = 7, #a, 5 do
  if done[(i - 2) / 5] == 1 then over(a[i], texts[a[i]], a[i + 4], a[i + 2], a[i + 3], true) end
end
local due = s[1] and math.max(0, s[1] - now) or -1
local set = {'HSET', P .. 's'}
local lease = most > 0 and call('ZSCORE', P .. 'H', host)
local known = most == 0 or lease and lease ~= '0'
if most == 0 or not known then
  save(set)
  return {known and 1 or 0, due, done, {}}
end

local own, any = {}, {}
if not s[2] then own = call('ZRANGE', P .. 'l|' .. lane, 0, most - 1) end
if not s[2] and lane ~= '' then any = call('ZRANGE', P .. 'l|', 0, most - 1) end
if #own + #any < most then
  call('SREM', P .. 'w|' .. lane, host)
  call('SADD', P .. 'w|' .. lane, host)
  call('SADD', P .. 'n', lane)  -- jobs that name no model wake it, too
end
if not own[1] and not any[1] then
  save(set)
  return {1, due, done, {}}
end
local x, y, of_own, of_any = 1, 1, {'ZREM', P .. 'l|' .. lane}, {'ZREM', P .. 'l|'}
local MOST_BYTES = 1048576  -- of their bodies, but for the last
local bytes = 0
local taken, jobs, headers, runs = 0, {}, {}, {'HSET', P .. 'h|' .. host}
local owners = {}
local first_end = tonumber(s[1]) or NEVER  -- before which nothing is due
local top, top_any = tonumber(s[5]) or NEVER, tonumber(s[6]) or NEVER
while taken < most and bytes < MOST_BYTES do
  local m, n = own[x], any[y]
  if not m and not n then break end
  local is_any = not m
  if m and n then
    local a1, b1, c1, d1, e1 = unpack_('>I8I4I4I4I4', m)
    local a2, b2, c2, d2, e2 = unpack_('>I8I4I4I4I4', n)
    if a1 ~= a2 then is_any = a2 < a1
    elseif b1 ~= b2 then is_any = b2 < b1
    elseif c1 ~= c2 then is_any = c2 < c1
    elseif d1 ~= d2 then is_any = d2 < d1
    else is_any = e2 < e1 end
  end
  if is_any then
    m, y = n, y + 1
    of_any[#of_any + 1] = m
  else
    x = x + 1
    of_own[#of_own + 1] = m
  end
  local id = string.sub(m, 25)
  local text = call('GET', P .. 'j|' .. id)
  bytes = bytes + #text
  local _, before, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, _, home, its_lane, after =
    unpack_(JOB, text)
  fence = math.max(fence + 1, floor(now / 125000) - FENCES_SINCE)  -- a Redis that has lost a taking gives no other host its fence
  -- FairShare::take()
  local flow = flow_of(rank .. its_lane, owner)
  if eh > flow[7] or eh == flow[7] and el > flow[8] then flow[7], flow[8] = eh, el end
  flow[2], flow.changed = flow[2] - 1, true
  if flow[2] == 0 then flow[5], flow[6] = flow[7], flow[8] end
  -- What competes with it has come as far, be it asked for by model or not.
  for i = 1, lane == '' and 1 or 2 do
    local its = class_of(rank .. (i == 1 and '' or lane))
    if its[1] > 0 and (th > its[2] or th == its[2] and tl > its[3]) then its[2], its[3], its.changed = th, tl, true end
  end
  local r = unpack_('>I8', rank)
  if r < top then top = r end
  if r < top_any then top_any = r end
  if before % 128 >= 64 then owners[owner] = (owners[owner] or 0) - 1 end
  if ends > 0 then
    call('ZREM', P .. 't', id)
    if ends < NEVER then call('ZADD', P .. 't', ends, id) end
    if ends < first_end then first_end = ends end
    dead, ends = ends, 0
  end
  headers[#headers + 1] = id
  headers[#headers + 1] = pack(JOB, RUNNING, before, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, host,
                               home, #its_lane, its_lane)
  runs[#runs + 1] = id
  runs[#runs + 1] = fence
  if home == NOBODY then home = '' end
  for _, told in ipairs({id, fence, attempts, came, dead < NEVER and dead or 0, owner, its_lane, home, string.sub(text, after)}) do
    jobs[#jobs + 1] = told
  end
  taken = taken + 1
end
if x > 1 then call(unpack(of_own)) end
if y > 1 then call(unpack(of_any)) end
call(unpack(runs))
for i = 1, #headers, 2 do call('SETRANGE', P .. 'j|' .. headers[i], 0, headers[i + 1]) end
for owner, n in pairs(owners) do
  if call('HINCRBY', P .. 'o', owner, n) <= 0 then call('HDEL', P .. 'o', owner) end
end
set = {'HSET', P .. 's', 'k', (tonumber(s[3]) or 0) + taken, 'w', s[4] - taken}
if aging > 0 then
  set[#set + 1], set[#set + 2] = 'h|' .. lane, string.format('%.0f', top)
  set[#set + 1], set[#set + 2] = 'h|', string.format('%.0f', top_any)
end
if first_end < (tonumber(s[1]) or NEVER) then
  set[#set + 1], set[#set + 2] = 'd', first_end
  due = math.max(0, first_end - now)
end
save(set)
return {1, due, done, jobs}
