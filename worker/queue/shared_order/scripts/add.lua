-- add: jobs come in, one after the other. It may be said again, by whoever did not hear the answer: what is there is not added twice.
--
-- ARGV  of each job: 4 id   5 lane   6 owner, 8 bytes   7 numbers, as in ADDED below   8 its home: the host that is told of its end
--       9 idempotency key (empty: none)   10 what that stands for   11 a job that does not count as having the key   12 in whose list it
--       is: 32 digits (empty: in none)   13 body
-- Answer {us until something is due, of each job: {1, its position (0: it is scheduled, or it is not told)}; {2}, {3}: queue, owner full;
--       {4, job}: a job of this id is there; {5, job, what for}: another has the key; {6, position}: it would stand further back than
--       is let in}
-- Nothing is written before all is read, so what is not ours there harms no other job.
-- O(jobs log n + jobs^2): each is compared with those that come in with it.
@open@
@flows@
@stand@
@line_up@
-- priority   cost   weight   not before, us (0: at once)   came, us (0: now)   deadline, us (0: what follows)   deadline from when it came,
-- or is due, us (0: none)   failed attempts so far   most jobs that wait (0: it was promised before, and is not refused)   most of an
-- owner (0: as many)   the key's life, ms   deadline once it has been taken, us (0: the same; -1: none)   the last position at which it is
-- let in (0: any; -1: any, and its position is not told; -2: none)   marks, as in open.lua   1: what is over by this id begins anew   1:
-- something is written also where the job is there, for replicas to tell of   1: its home's caller waits for it, and nobody else
local ADDED, EACH = '>ddddddddddddddddd', 10
local NOBODYS = '00000000000000000000000000000000'
local there, had = {}, {}
for i = 4, #a, EACH do
  there[i] = call('GETRANGE', P .. 'j|' .. a[i], 0, 7)
  if a[i + 5] ~= '' then had[i] = call('GET', P .. 'k|' .. a[i + 5]) end
end
local s = call('HMGET', P .. 's', 'd', 'w', 'n')
if s[1] and now >= s[1] + 0 then
  @over@
  @due@
  s = call('HMGET', P .. 's', 'd', 'w', 'n')
end
next_due = tonumber(s[1]) or NEVER
local waiting, arrived = tonumber(s[2]) or 0, tonumber(s[3]) or 0
local jobs, timers, lists, keys, owners, waits = {'MSET'}, {'ZADD', P .. 't'}, {}, {}, {}, {}
local lines, new, of_keys, news, anew, first_due, writes = {}, {}, {}, {}, {'ZREM', P .. 'z'}, next_due
local function of(table, key, ...)
  local its = table[key]
  if not its then
    its = {...}
    table[key] = its
  end
  return its
end

-- How many of those that come in now stand before it, in one of these lanes.
local function before(lane, r, th, tl)
  local n = 0
  for i = 1, #news, 4 do
    local other, q, oh = news[i], news[i + 1], news[i + 2]
    if (other == lane or other == '' or lane == '') and (q < r or q == r and (oh < th or oh == th and news[i + 3] <= tl)) then n = n + 1 end
  end
  return n
end
local function admit(i)
  local id, lane, owner, key = a[i], a[i + 1], a[i + 2], a[i + 5]
  local priority, cost, weight, later, came, dead, lasts, attempts, most, most_of_owner, key_ms, ends, last, marks, again, written,
    waited =
    unpack_(ADDED, a[i + 3])
  writes = writes or written == 1
  local fence = 0
  if new[id] then return {4, id} end
  if there[i] ~= '' then
    if again == 0 or string.byte(there[i]) ~= OVER then return {4, id} end
    fence, marks = 1 + select(4, unpack_('>BBI2I4', there[i])), marks + 32
  end
  if most_of_owner > 0 then marks = marks + 64 end
  if waited == 1 then marks = marks + 128 end
  local of_key = of_keys[key] or had[i]
  if of_key then
    local other, digest = string.match(of_key, '^(%S+) (.*)$')
    if other ~= a[i + 7] and (new[other] or call('EXISTS', P .. 'j|' .. other) == 1) then return {5, other, digest} end
  end
  if most > 0 then
    if waiting >= most then return {2} end
    if most_of_owner > 0 then
      waits[owner] = waits[owner] or tonumber(call('HGET', P .. 'o', owner) or 0)
      if waits[owner] + (owners[owner] or 0) >= most_of_owner then return {3} end
    end
  end
  if came == 0 then came = now end
  if later > came then came = later end
  if dead == 0 then dead = lasts > 0 and came + lasts or NEVER end
  if ends == -1 then ends = NEVER end
  local r = 4503599627370496 - priority
  local rank = pack('>I8', r)
  local state, th, tl, eh, el, arrival, position, due = SCHEDULED, 0, 0, 0, 0, 0, 0, dead
  if later > now and last == -2 then return {6, 0} end
  if later <= now then
    if last == -2 then last = 0.5 end
    if last > 0 then
      th, tl = begins(lane, owner, rank)
    else
      th, tl, eh, el = line_up(lane, owner, rank, cost, weight)
    end
    arrival = arrived + 1
    local here = rank .. pack('>I4I4I8', th, tl, arrival)
    if last >= 0 then
      position = 1 + before(lane, r, th, tl) + call('ZLEXCOUNT', P .. 'l|' .. lane, '-', '(' .. here)
      for _, other in ipairs(lane == '' and all_lanes() or {''}) do
        if other ~= lane then position = position + call('ZLEXCOUNT', P .. 'l|' .. other, '-', '(' .. here) end
      end
      if last > 0 then
        if position > last then return {6, position} end
        th, tl, eh, el = line_up(lane, owner, rank, cost, weight)
      end
    end
    state, arrived = WAITING, arrival
    local n, line = #news, of(lines, lane, 'ZADD', P .. 'l|' .. lane)
    news[n + 1], news[n + 2], news[n + 3], news[n + 4] = lane, r, th, tl
    line[#line + 1] = 0
    line[#line + 1] = here .. id
  elseif later < dead then
    due = later
  end
  jobs[#jobs + 1] = P .. 'j|' .. id
  jobs[#jobs + 1] = pack(JOB, state, marks, attempts, fence, rank, cost, weight, th, tl, eh, el, arrival, came, dead, ends, owner, NOBODY, a[i + 4],
                         #lane, lane) .. a[i + 9]
  waiting = waiting + 1
  if most_of_owner > 0 then owners[owner] = (owners[owner] or 0) + 1 end
  if due < NEVER then
    timers[#timers + 1] = due
    timers[#timers + 1] = id
    if due < first_due then first_due = due end
  end
  if waited == 1 then
    local all = of(lists, ' ' .. a[i + 4], 'SADD', P .. 'C|' .. a[i + 4])
    all[#all + 1] = id
  end
  local listed = a[i + 8]
  if listed ~= '' then
    local all = of(lists, 'u', 'ZADD', P .. 'u')
    all[#all + 1] = 0
    all[#all + 1] = id .. listed .. key
    if listed ~= NOBODYS then
      local own = of(lists, listed, 'ZADD', P .. 'u|' .. listed)
      own[#own + 1] = 0
      own[#own + 1] = id
    end
    if again == 1 then anew[#anew + 1] = id end
  end
  new[id] = true
  if key ~= '' then
    of_keys[key] = id .. ' ' .. a[i + 6]
    keys[#keys + 1] = {'SET', P .. 'k|' .. key, of_keys[key], 'PX', key_ms}
  end
  return {1, position}
end

local answer = {0}
for i = 4, #a, EACH do answer[#answer + 1] = admit(i) end
local set = {'HSET', P .. 's'}
if jobs[2] then
  for lane, line in pairs(lines) do stand(lane, line) end
  call(unpack(jobs))
  set = {'HSET', P .. 's', 'w', waiting, 'n', arrived}
  for owner, n in pairs(owners) do call('HINCRBY', P .. 'o', owner, n) end
  if timers[3] then call(unpack(timers)) end
  for _, list in pairs(lists) do call(unpack(list)) end
  if anew[3] then call(unpack(anew)) end
  for _, key in ipairs(keys) do call(unpack(key)) end
  soon(first_due)
elseif writes then
  set = {'HSET', P .. 's', 'y', now}
end
save(set)
answer[1] = next_due < NEVER and math.max(0, next_due - now) or -1
return answer
