-- request: now, entries = {{id, due}, ...}, requirements = {name = JSON}; ARGV from the third on: their records
local time = redis.call('TIME')
for name, requirements in pairs(request.requirements) do
  if redis.call('HSETNX', key.queues, name, requirements) == 1 then queues_changed() end
  redis.call('ZADD', key.used, 'GT', time[1], name)
end

local ready = false
for i, item in ipairs(request.entries) do
  local id, due, raw = item[1], item[2], ARGV[i + 2]
  if redis.call('HSETNX', key.entries, id, raw) == 1 then
    local entry = cmsgpack.unpack(raw)
    redis.call('ZADD', key.index, 0, id)
    if due > request.now then
      redis.call('ZADD', key.delayed, due, id)
      -- A queue is not pruned before its last entry is due.
      redis.call('ZADD', key.used, 'GT', due / 1000000, entry[QUEUE])
    else
      redis.call('ZADD', queue_key[entry[QUEUE]], 0, entry[MEMBER])
      ready = true
    end
  end
end
if ready then redis.call('PUBLISH', channel, '') end
