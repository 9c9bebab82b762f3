-- request: run, now, members = those of the entries, numbers = the number of each one's kind, requirements = {name = JSON},
-- uses = the same of those that use resources; ARGV from the third on: the kinds
local time = redis.call('TIME')
for name, requirements in pairs(request.requirements) do
  if redis.call('HSETNX', key.queues, name, requirements) == 1 then
    if request.uses[name] then redis.call('HSET', key.uses, name, request.uses[name]) end
    queues_changed()
  end
  redis.call('ZADD', key.used, 'GT', time[1], name)
end

local kinds, ids = {}, {}
for i, member in ipairs(request.members) do
  kinds[i] = kind_of(ARGV[2 + request.numbers[i]])
  ids[i] = id_of(member)
end

local records, added, is_added, waiting = {}, {}, {}, {}
for i, known in ipairs(values_of(key.entries, ids)) do
  local id, member, kind = ids[i], request.members[i], kinds[i]
  if not known and not is_added[id] then
    is_added[id] = true
    table.insert(added, id)
    table.insert(records, id)
    table.insert(records, member .. '\n' .. kind.raw)
    -- A queue is not pruned before its last entry is due.
    if kind.due then redis.call('ZADD', key.used, 'GT', kind.due / 1000000, kind.queue) end
    if kind.due and kind.due > request.now and not kind.follows then
      redis.call('ZADD', key.delayed, kind.due, id)
    elseif not kind.follows then
      waiting[kind.queue] = waiting[kind.queue] or {}
      table.insert(waiting[kind.queue], 0)
      table.insert(waiting[kind.queue], member)
    end
  end
end
in_parts(records, function(...) redis.call('HSET', key.entries, ...) end)
in_parts(added, function(...) redis.call('SADD', index_key[request.run], ...) end)
for queue, members in pairs(waiting) do
  in_parts(members, function(...) redis.call('ZADD', queue_key[queue], ...) end)
end
-- Also for what is delayed only: who claims learns for how long.
if #added > 0 then redis.call('PUBLISH', channel, '') end
