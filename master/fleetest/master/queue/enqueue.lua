-- request: now, entries = {{id, due, queue, member, follows}, ...}, requirements = {name = JSON}, uses = the
-- same of those that use resources; ARGV from the third on: their
-- records
local time = redis.call('TIME')
for name, requirements in pairs(request.requirements) do
  if redis.call('HSETNX', key.queues, name, requirements) == 1 then
    if request.uses[name] then redis.call('HSET', key.uses, name, request.uses[name]) end
    queues_changed()
  end
  redis.call('ZADD', key.used, 'GT', time[1], name)
end

local index, waiting = {}, {}
for i, item in ipairs(request.entries) do
  local id, due, queue, member, follows = unpack(item)
  if redis.call('HSETNX', key.entries, id, ARGV[i + 2]) == 1 then
    table.insert(index, 0)
    table.insert(index, id)
    if follows then
      redis.call('ZADD', key.used, 'GT', due / 1000000, queue)
    elseif due > request.now then
      redis.call('ZADD', key.delayed, due, id)
      -- A queue is not pruned before its last entry is due.
      redis.call('ZADD', key.used, 'GT', due / 1000000, queue)
    else
      waiting[queue] = waiting[queue] or {}
      table.insert(waiting[queue], 0)
      table.insert(waiting[queue], member)
    end
  end
end
in_parts(index, function(...) redis.call('ZADD', key.index, ...) end)
for queue, members in pairs(waiting) do
  in_parts(members, function(...) redis.call('ZADD', queue_key[queue], ...) end)
end
-- Also for what is delayed only: who claims learns for how long.
if #index > 0 then redis.call('PUBLISH', channel, '') end
