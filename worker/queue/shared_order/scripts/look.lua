-- look: what is known of a job.
--
-- ARGV  4 id   5 how many bytes are told of its body or result (0: all)
-- Answer {state (1 scheduled, 2 waits, 3 delayed, 4 runs, 5 over), failed attempts, fence, who runs it, how it ended (D its host said so, X and it
--        is a dead letter, C cancelled, E its deadline, L attempts were lost too often), its result;
--        its body where there is none; when it ended, us; of what its owner's URL is told of that: how often it was tried, what came of
--        it (deliver.lua; 0: it is not told, or not yet), in how long it is told next, us (-1: it is not)}; {0}: it is not there
-- O(log n)
@open@
local text = call('GET', P .. 'j|' .. a[4])
if not text then return {0} end
local state, marks, attempts, fence, _, _, _, _, _, tries, outcome, _, _, _, ended, _, host, _, _, after = unpack_(JOB, text)
local how, due = '', -1
if state == OVER then
  how, after = string.sub(text, after, after), after + 1
  if floor(marks / 2) % 2 == 1 and outcome == 0 then
    local at = call('ZSCORE', P .. 'd|w', a[4])
    tries, due = tonumber(call('HGET', P .. 'D|w', a[4])) or 0, at and math.max(0, at - now) or -1
  end
else
  tries, outcome, ended = 0, 0, 0
end
return {state, attempts, fence, host, how, string.sub(text, after, a[5] == '0' and -1 or after + a[5] - 1), ended, tries, outcome, due}
