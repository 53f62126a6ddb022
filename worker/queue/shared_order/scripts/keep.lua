-- keep: parts of answers go to their jobs' streams, and who listens there is woken.
--
-- An entry's id is FENCE-NUMBER, of its last part. Redis takes none that is not higher than the last: what is said again, or by a host
-- that has lost the job, is not kept twice.
--
-- KEYS  1 what all keys begin with
-- ARGV  1 how long a stream is kept after its last entry, ms; then of each entry: job, the most entries of its stream, id, parts
-- Answer how many were kept. Refused as a whole when Redis's memory is full
-- O(1) each
local P, a = KEYS[1], ARGV
local call = redis.call
local kept = 0
for i = 2, #a, 4 do
  local key = P .. 'e|' .. a[i]
  local done = redis.pcall('XADD', key, 'MAXLEN', '~', a[i + 1], a[i + 2], 'p', a[i + 3])
  if type(done) ~= 'table' then
    kept = kept + 1
    call('PEXPIRE', key, a[1])
    call('PUBLISH', key, a[i + 2])
  elseif i == 2 and string.find(done.err, 'OOM', 1, true) then
    return done
  end
end
return kept
