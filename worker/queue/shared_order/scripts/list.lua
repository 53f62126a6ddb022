-- list: jobs of one owner, of all, or dead letters, the newest first. What is not kept any more leaves the list.
--
-- ARGV  4 which: z, u, or u|OWNER   5 those before this id (empty: from the newest)   6 most   7 how many bytes are told of each record
-- Answer {id of the last that was looked at (empty: there are no more), {as look of each, behind its id...}}
-- O(most log n)
@open@
local key, out, last, n = P .. a[4], {}, '', 0
for _, member in ipairs(call('ZREVRANGEBYLEX', key, a[5] == '' and '+' or '(' .. a[5], '-', 'LIMIT', 0, a[6])) do
  local id = string.sub(member, 1, 30)
  local text = call('GETRANGE', P .. 'j|' .. id, 0, JOB_MOST + a[7])
  last, n = id, n + 1
  if text == '' then
    if a[4] ~= 'u' then call('ZREM', key, member) end  -- else its key goes with it (sweep.lua)
  else
    local state, marks, attempts, fence, _, _, _, _, _, tries, outcome, _, _, _, ended, _, host, _, _, after = unpack_(JOB, text)
    local how, due = '', -1
    if state == OVER then
      how, after = string.sub(text, after, after), after + 1
      if floor(marks / 2) % 2 == 1 and outcome == 0 then
        local at = call('ZSCORE', P .. 'd|w', id)
        tries, due = tonumber(call('HGET', P .. 'D|w', id)) or 0, at and math.max(0, at - now) or -1
      end
    else
      tries, outcome, ended = 0, 0, 0
    end
    out[#out + 1] = id
    out[#out + 1] = {state, attempts, fence, host, how, string.sub(text, after, after + a[7] - 1), ended, tries, outcome, due}
  end
end
return {n == a[6] + 0 and last or '', out}
