-- request: ids
local found = {}
for _, id in ipairs(request.ids) do
  local entry = read(id)
  local queue = entry and queue_key[entry[QUEUE]]
  if queue then
    redis.call('ZREM', queue, entry[MEMBER])
    table.insert(found, id)
    if entry[USES] then drop_hold(id, 0) end
  end
end
forget(found)
