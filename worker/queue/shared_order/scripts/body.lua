-- body: that of a job that is over, where it is kept: of a dead letter, or as its marks say.
--
-- ARGV  4 id
-- Answer the body; '': there is none
-- O(1)
@open@
local body = call('GET', P .. 'b|' .. a[4])
if body then return body end
local text = call('GET', P .. 'j|' .. a[4])
if not text or string.byte(text) ~= OVER then return '' end
return string.sub(text, select(20, unpack_(JOB, text)) + 1)
