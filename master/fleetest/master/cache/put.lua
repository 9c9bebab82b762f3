-- KEYS: as redis_layer.py lists them
-- ARGV: now (ms), ttl (ms), most bytes, eviction, then keys and values in turn
local now, ttl, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  forget(key)
end
for i = 5, #ARGV, 2 do
  local key, value = ARGV[i], ARGV[i + 1]
  forget(key)
  redis.call('HSET', KEYS[1], key, value)
  redis.call('ZADD', KEYS[2], now + ttl, key)
  redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), key)
  redis.call('INCRBY', KEYS[5], #key + #value)
end
while tonumber(redis.call('GET', KEYS[5]) or '0') > most do
  local key
  if ARGV[4] == 'random' then
    key = redis.call('ZRANDMEMBER', KEYS[3])
  else
    key = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  end
  if not key then
    break
  end
  forget(key)
end
for _, name in ipairs(KEYS) do
  redis.call('PEXPIRE', name, ttl)
end
