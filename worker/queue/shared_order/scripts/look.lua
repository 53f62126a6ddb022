-- look: what is known of a job.
--
-- ARGV  4 id   5 how many bytes are told of its body or result (0: all)
-- Answer {state (1 scheduled, 2 waits, 3 delayed, 4 runs, 5 over), failed attempts, fence, who runs it, how it ended (D its host said so,
--        C cancelled, E its deadline, L hosts were lost too often), its result; its body where there is none}; {0}: it is not there
-- O(1)
@open@
local text = call('GET', P .. 'j|' .. a[4])
if not text then return {0} end
local state, _, attempts, fence, _, _, _, _, _, _, _, _, _, _, _, _, host, _, _, after = unpack_(JOB, text)
local how = ''
if state == OVER then how, after = string.sub(text, after, after), after + 1 end
return {state, attempts, fence, host, how, string.sub(text, after, a[5] == '0' and -1 or after + a[5] - 1)}
