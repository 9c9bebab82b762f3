-- KEYS: workers, session
-- ARGV: worker id, session id, record, time to live in ms (0 leaves it), stream that must hold the session ('': takes it)
-- Answers 0 when the session is over, or another stream of it began.
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
if ARGV[5] ~= '' then
  local before = redis.call('HGET', KEYS[1], ARGV[1])
  if before and cjson.decode(before).stream ~= ARGV[5] then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[4] ~= '0' then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return 1
