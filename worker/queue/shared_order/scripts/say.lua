-- say: parts of answers (shared_answers/parts.h) go to a host that waits for them.
--
-- KEYS  1 what all keys begin with
-- ARGV  1 the host   2 the message
-- Answer how many hear it, of those at this server
return redis.call('PUBLISH', KEYS[1] .. 'c|' .. ARGV[1], ARGV[2])
