-- back: a host gives a job back that it runs: to its old place, at once or after a while.
--
-- ARGV  4 id   5 host   6 fence   7 1: the attempt failed; 0: it is not counted   8 most attempts   9 after how long it may be taken, us
--       10 its result, if that was its last attempt
-- Answer 1 it is back; 2 that was the last attempt, and it is over; 0 it is not this host's any more; -1 it was over, or is not there
-- O(log n)
@open@
@flows@
@over@
@stand@
@come_back@
local text = call('GETRANGE', P .. 'j|' .. a[4], 0, JOB_MOST)
if text == '' then return -1 end
local state, _, attempts, fence, _, _, _, _, _, _, _, _, _, _, _, _, host = unpack_(JOB, text)
if state == OVER then return -1 end
if state ~= RUNNING or host ~= a[5] or fence ~= a[6] + 0 then return 0 end
if a[7] == '1' then
  attempts = math.min(attempts + 1, 65535)
  if attempts >= a[8] + 0 then
    over(a[4], string.sub(text, 1, 2) .. pack('>I2', attempts) .. string.sub(text, 5), 'L', a[10])
    save({'HSET', P .. 's'})
    return 2
  end
end
come_back(a[4], text, attempts, a[9] + 0)
save({'HSET', P .. 's'})
return 1
