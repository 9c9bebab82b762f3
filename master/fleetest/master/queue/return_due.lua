-- request: version, now, limit, forget_queue_after (microseconds)
-- Answers how many entries are back; false: read the list of queues again.
if version_is_stale() then return false end

local returned = move_due(request.limit)
local expired = redis.call('ZRANGEBYSCORE', key.claims, '-inf', microseconds(), 'LIMIT', 0, request.limit)
for _, id in ipairs(expired) do
  local holder = redis.call('HGET', key.holders, id)
  returned = returned + put_back(id, holder and cmsgpack.unpack(holder))
end
if returned > 0 then redis.call('PUBLISH', channel, '') end

-- Queues come by themselves, so they must go by themselves.
local unused_since = (microseconds() - request.forget_queue_after) / 1000000
for _, name in ipairs(redis.call('ZRANGEBYSCORE', key.used, '-inf', unused_since, 'LIMIT', 0, 100)) do
  if queue_key[name] and redis.call('EXISTS', queue_key[name]) == 0 then
    redis.call('HDEL', key.queues, name)
    redis.call('HDEL', key.uses, name)
    redis.call('ZREM', key.used, name)
    queues_changed()
  end
end
return returned
