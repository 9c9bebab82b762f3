-- request: id, version, queues = all that need the same as its own, for the projects that there are
-- Answers {position, length of these queues, due}, or false when it does not wait; 0: read the list of queues again.
if version_is_stale() then return 0 end
local member, kind = read(request.id)
local own = kind and queue_key[kind.queue]
if not own then return false end

local length = 0
for _, queue in pairs(queue_key) do length = length + redis.call('ZCARD', queue) end
local due = redis.call('ZSCORE', key.delayed, request.id)
if due then return {length + 1, length + 1, due} end
if not redis.call('ZSCORE', own, member) then return false end

-- Projects take turns, the one with the oldest first; ';' follows ':', the end of each part of a member.
local low, high = '[' .. kind.band .. ':', '(' .. kind.band .. ';'
local function first_of(queue) return redis.call('ZRANGEBYLEX', queue, low, high, 'LIMIT', 0, 1)[1] end

local own_first = first_of(own)
local turns = redis.call('ZLEXCOUNT', own, low, '(' .. member)
local ahead = turns
for _, queue in pairs(queue_key) do
  ahead = ahead + redis.call('ZLEXCOUNT', queue, '-', '(' .. kind.band .. ':')
  local first = queue ~= own and first_of(queue)
  if first then
    local before_me = first < own_first and turns + 1 or turns
    ahead = ahead + math.min(before_me, redis.call('ZLEXCOUNT', queue, low, high))
  end
end
return {ahead + 1, length, false}
