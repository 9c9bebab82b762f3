-- request: ids
local found = {}
for _, id in ipairs(request.ids) do
  local entry = read(id)
  local queue = entry and queue_key[entry[QUEUE]]
  if queue then
    redis.call('ZREM', queue, entry[MEMBER])
    table.insert(found, id)
  end
end
forget(found)
