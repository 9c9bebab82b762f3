-- KEYS: session; ARGV: session id. A session that replaced this one stays.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
