-- request: id. Answers {position, length of the queue, due}, or false when it does not wait.
local entry = read(request.id)
local queue = entry and queue_key[entry[QUEUE]]
if not queue then return false end

local length = redis.call('ZCARD', queue)
local due = redis.call('ZSCORE', key.delayed, request.id)
if due then return {length + 1, length + 1, due} end

local member = entry[MEMBER]
if not redis.call('ZSCORE', queue, member) then return false end
local band = member:sub(1, 3)
local own = member:match('^%d+:[^:]*:')

local function entries_between(low, high) return redis.call('ZLEXCOUNT', queue, low, high) end
local function first_from(low)
  return redis.call('ZRANGEBYLEX', queue, low, '(' .. band .. ';', 'LIMIT', 0, 1)[1]
end

-- Projects take turns, the one with the oldest head first; ';' follows ':', the end of each part of a member.
local own_age = first_from('[' .. own):sub(#own + 1)
local turns = entries_between('[' .. own, '(' .. member)
local ahead = entries_between('-', '(' .. band .. ':') + turns
local first = first_from('[' .. band .. ':')
while first do
  local flow = first:match('^%d+:[^:]*:')
  local past = flow:sub(1, -2) .. ';'
  if flow ~= own then
    local before_me = first:sub(#flow + 1) < own_age and turns + 1 or turns
    ahead = ahead + math.min(before_me, entries_between('[' .. flow, '(' .. past))
  end
  first = first_from('[' .. past)
end
return {ahead + 1, length, false}
