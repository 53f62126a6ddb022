-- secret: what hosts sign challenges and passes by. The first that asks makes it; who knows it puts it back where Redis has lost it.
--
-- KEYS  1 a string
-- ARGV  1 the secret that the host knows; or a fresh one
-- Answer the secret that all have
-- O(1)
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
