-- request: version, now, limit (of delayed entries), lots (how many claims), forget_queue_after (microseconds)
-- Answers how many entries are back, and whether there may be more; false: read the list of queues again.
if version_is_stale() then return false end

local returned = move_due(request.limit)
local time = microseconds()
local lots = redis.call('ZRANGEBYSCORE', key.claims, '-inf', time, 'LIMIT', 0, request.lots)
for _, lot in ipairs(lots) do
  local ids, is_over = cmsgpack.unpack(lot), true
  for i, raw in ipairs(values_of(key.holders, ids)) do
    local holder = holder_in(raw)
    if holder and holder[3] <= time then  -- else it is confirmed, back, or claimed again
      local is_back = put_back(ids[i], holder)
      if is_back then returned = returned + 1 end
      is_over = is_over and is_back ~= nil
    end
  end
  if is_over then
    redis.call('ZREM', key.claims, lot)
  else
    redis.call('ZADD', key.claims, time + 60000000, lot)  -- nobody knows the queue just now
  end
end
if returned > 0 then redis.call('PUBLISH', channel, '') end

-- Queues come by themselves, so they must go by themselves.
local unused_since = (time - request.forget_queue_after) / 1000000
for _, name in ipairs(redis.call('ZRANGEBYSCORE', key.used, '-inf', unused_since, 'LIMIT', 0, 100)) do
  if queue_key[name] and redis.call('EXISTS', queue_key[name]) == 0 then
    redis.call('HDEL', key.queues, name)
    redis.call('HDEL', key.uses, name)
    redis.call('ZREM', key.used, name)
    queues_changed()
  end
end
return {returned, (returned >= request.limit or #lots >= request.lots) and 1 or 0}
