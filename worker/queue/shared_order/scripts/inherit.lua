-- inherit: a host that can settle it takes what was charged for jobs that are over, and whose home is gone. Nobody else gets it, whatever
-- becomes of that host.
--
-- ARGV  4 most jobs   5 how many bytes are told of each one's result   6 of its receipt
-- Answer {1: there may be more at once, {id, receipt, failed attempts, how it ended (look.lua), when, us, its result...}}
-- O(log homes + jobs log n): of one home 200 jobs are looked at.
@open@
local LOOKED_AT, LATER, NEXT = 200, 30000000, 5000000  -- us
local home = call('ZRANGEBYSCORE', P .. 'M', '-inf', now, 'LIMIT', 0, 1)[1]
if not home then return {0, {}} end
local jobs, out, taken = P .. 'M|' .. home, {}, 0
local ids = call('ZRANGEBYSCORE', jobs, '-inf', now, 'LIMIT', 0, LOOKED_AT)
for _, id in ipairs(ids) do
  if taken == a[4] + 0 then break end
  call('ZREM', jobs, id)  -- first: what is none of ours there does not stop the others
  local key = P .. 'm|' .. id
  local state = call('GETRANGE', P .. 'j|' .. id, 0, 0)
  if state ~= '' and string.byte(state) ~= OVER then
    call('ZADD', jobs, now + LATER, id)
  elseif state == '' then
    call('DEL', key)  -- nobody knows its end
  else
    local receipt = call('GETRANGE', key, 8, 7 + a[6])
    if receipt ~= '' then
      call('SET', key, 'T', 'PX', CHARGE_LASTS)
      local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST + a[5])
      local _, _, attempts, _, _, _, _, _, _, _, _, _, _, _, ended, _, _, _, _, after = unpack_(JOB, text)
      for _, told in ipairs({id, receipt, attempts, string.sub(text, after, after), ended, string.sub(text, after + 1, after + a[5])}) do
        out[#out + 1] = told
      end
      taken = taken + 1
    end
  end
end
local more = taken == a[4] + 0 or #ids == LOOKED_AT
if not more then
  call('ZREM', P .. 'M', home)
  if call('EXISTS', jobs) == 1 then call('ZADD', P .. 'M', now + NEXT, home) end
end
return {more and 1 or 0, out}
