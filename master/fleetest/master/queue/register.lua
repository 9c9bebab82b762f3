-- KEYS: workers (hash: id to record), session (string with a time to live: the id of the session that lives)
-- ARGV: worker id, session id, instance, record, time to live in ms
-- Answers {"taken", record of the one who lives}, {"replaced", record}, or {"new"}.
local before = redis.call('HGET', KEYS[1], ARGV[1])
local alive = redis.call('GET', KEYS[2])
if alive and before and cjson.decode(before).instance ~= ARGV[3] then return {'taken', before} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[5])
if before then return {'replaced', before} end
return {'new'}
