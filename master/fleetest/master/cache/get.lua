-- KEYS: as redis_layer.py lists them
-- ARGV: now (ms), eviction, then keys
local found = {}
for i = 3, #ARGV do
  local expires = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if expires and tonumber(expires) > tonumber(ARGV[1]) then
    found[#found + 1] = redis.call('HGET', KEYS[1], ARGV[i])
    if ARGV[2] == 'lru' then
      redis.call('ZADD', KEYS[3], 'XX', redis.call('INCR', KEYS[4]), ARGV[i])
    end
  else
    found[#found + 1] = false
  end
end
return found
