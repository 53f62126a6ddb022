-- advance: what is due happens. Each host calls it when something is; add and serve do so by themselves.
--
-- Answer {us until something is due (0: more is; -1: nothing is), ids whose deadline has passed...}
-- O(log n) for each thing that is due, 64 at most.
@open@
@flows@
@stand@
@line_up@
@over@
@due@
local at = call('HGET', P .. 's', 'd')
return {at and math.max(0, at - now) or -1, unpack(ended)}
