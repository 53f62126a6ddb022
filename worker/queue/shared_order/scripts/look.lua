-- look: what is known of a job.
--
-- ARGV  4 id
-- Answer {state (1 scheduled, 2 waits, 3 delayed, 4 runs, 5 over), failed attempts, fence, who runs it, how it ended (D its host said so,
--        C cancelled, E its deadline, L hosts were lost too often), its result}; {0}: it is not there
-- O(1)
@open@
local text = call('GET', P .. 'j|' .. a[4])
if not text then return {0} end
local state, _, attempts, fence, _, _, _, _, _, _, _, _, _, _, _, _, host, _, _, after = unpack_(JOB, text)
if state ~= OVER then return {state, attempts, fence, host, '', ''} end
return {state, attempts, fence, host, string.sub(text, after, after), string.sub(text, after + 1)}
