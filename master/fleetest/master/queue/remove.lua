-- request: run, ids
local found = {}
for _, id in ipairs(request.ids) do
  local member, kind = read(id)
  local queue = kind and queue_key[kind.queue]
  if queue then
    redis.call('ZREM', queue, member)
    redis.call('ZREM', key.delayed, id)
    table.insert(found, id)
    if kind.uses then drop_hold(id, 0) end
  end
end
forget(request.run, found)
