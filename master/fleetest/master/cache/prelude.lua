local function forget(key)
  local size = redis.call('HSTRLEN', KEYS[1], key)
  if redis.call('HDEL', KEYS[1], key) == 1 then
    redis.call('DECRBY', KEYS[5], size + #key)
  end
  redis.call('ZREM', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
end
