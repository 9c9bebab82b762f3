-- KEYS: as redis_layer.py lists them
-- ARGV: keys
for _, key in ipairs(ARGV) do
  forget(key)
end
