-- kept: what a job's stream has from a part on.
--
-- KEYS  1 what all keys begin with
-- ARGV  1 job   2 from which id on   3 most entries   4 bytes: after so many no more come
-- Answer {1 there is more, id, parts, id, parts…}
-- O(entries)
local entries = redis.call('XRANGE', KEYS[1] .. 'e|' .. ARGV[1], ARGV[2], '+', 'COUNT', ARGV[3] + 1)
local most, bytes, answer = ARGV[3] + 0, ARGV[4] + 0, {0}
for i = 1, #entries do
  if i > most or bytes <= 0 then
    answer[1] = 1
    break
  end
  local parts = entries[i][2][2]
  answer[2 * i], answer[2 * i + 1] = entries[i][1], parts
  bytes = bytes - #parts
end
return answer
