-- KEYS: workers, session; ARGV: worker id, session id, record, time to live in ms. Answers 0 when the session is over.
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
