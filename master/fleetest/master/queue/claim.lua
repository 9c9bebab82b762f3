-- Hands out entries to workers.
--
-- request: version, now (the master's clock), look_ahead, due_limit, claim_ttl, reserve_after, reservation_ttl (all in
-- microseconds), classes = {{name, numbers of its queues}, ...}, bids = {{worker, class, shards, slots, free, capacity, warm, ahead}, ...}, claims =
-- those to confirm first, as the prelude reads them, uses = {queue = {{name, access, amount, size, together}, ...}} of those queues whose
-- entries use named resources
-- Answers {due, left, gangs, kinds, number of the bid (negative for what follows another), member, number of its kind, ...}: `due` is when the first delayed entry
-- joins its queue (the master's clock), `left` the numbers of the classes for which something still waits, `gangs` whether a
-- gang does. False: read the list of queues again.

-- The entry for which the worker is reserved goes first, or keeps its reservation.
local function serve_reservation(number, bid)
  local held = reservation_of[bid.worker]
  if not held then return end
  local member, kind = read(held.id)
  local waits = member and bid.class.satisfies[kind.queue] and not taken[member]
    and redis.call('ZSCORE', queue_key[kind.queue], member)
  local entry = waits and {id = held.id, member = member, kind = kind}
  if not entry or not fits(kind.asked, bid.capacity) or lacks_resources(entry) then
    cancel_reservation(held.id)
  elseif kind.members then
    if not place_gang(entry) then reserve(bid, held.id, held.need, held.seats) end
  elseif bid.shards > 0 and fits(takes(kind, bid), bid.free) then
    give(number, bid, entry)
  else
    reserve(bid, held.id, takes(kind, bid), 0)
  end
end

-- The first that fits; among those of its priority within the window, one whose environment is warm. A gang that comes
-- first is given at once, perhaps to others.
local function choose(bid)
  local view, space, first = bid.class.view, room(bid), nil
  local i = 1
  while i <= window_size do
    local entry = candidate(view, i)
    if not entry or (first and entry.kind.band ~= first.kind.band) then break end
    if entry.kind.members then
      -- There is only less room as this call goes on, so it is tried once.
      if not first and not entry.hopeless then
        entry.hopeless = not place_gang(entry)
        if not entry.hopeless then i = i - 1 end
        space = room(bid)
        if slots(bid) <= 0 then break end
      end
    elseif fits(entry.kind.asked, bid.capacity) and fits(takes(entry.kind, bid), space) then
      if bid.warm[entry.kind.environment] then return entry end
      first = first or entry
      if not bid.warm_any then break end
    end
    i = i + 1
  end
  return first
end

-- What comes next in order, when it may wait in the session of the one that the worker was given. Others come for what is
-- left, so it is a part of that; what was repeated before comes alone, lest it take others with it once more.
local function follower(bid)
  local first, entry = bid.first, candidate(bid.class.view, 1)
  local kind = entry and entry.kind
  if not first or kind ~= first.kind or holder_of(entry.id) ~= holder_of(first.id) then return nil end
  if kind.due or kind.uses or kind.members or kind.follows or reservation_of[bid.worker] or reserved_worker[entry.id] then return nil end
  kind.waiting = kind.waiting or redis.call('ZCARD', queue_key[kind.queue])
  bid.following = bid.following + 1
  return kind.waiting - #leaving[kind.queue] > 3 * bid.following and entry
end

confirm_claims()
if version_is_stale() then return false end
move_due(request.due_limit)

for _, class in ipairs(request.classes) do
  class.satisfies = {}
  for i, number in ipairs(class.queues) do
    class.queues[i] = request.queues[number]
    class.satisfies[class.queues[i]] = true
  end
  class.fields = {}
  class.view = {class = class, projects = {}, window = {}}
end
for _, bid in ipairs(request.bids) do
  bid.class = request.classes[bid.class]
  bid.takes, bid.following = {}, 0
  bid.warm_any = next(bid.warm) ~= nil
end

read_reservations()
for number, bid in ipairs(request.bids) do serve_reservation(number, bid) end
for _, class in ipairs(request.classes) do
  for i = 1, window_size do
    local entry = candidate(class.view, i)
    if not entry then break end
    local aged = is_aged(entry.member)
    if entry.kind.members then
      answer[3] = 1
      if aged then reserve_gang(entry) end
    elseif aged and not reserved_worker[entry.id] then
      reserve_for(entry)
    end
  end
end

-- In rounds, so that every worker gets one before any gets two.
local progress = true
while progress do
  progress = false
  for number, bid in ipairs(request.bids) do
    local entry = slots(bid) > 0 and choose(bid)
    if entry then
      give(number, bid, entry)
      progress = true
    else
      bid.shards = 0
    end
  end
end

-- The same for what follows.
progress = true
while progress do
  progress = false
  for number, bid in ipairs(request.bids) do
    local entry = bid.ahead > bid.following and follower(bid)
    if entry then
      give(-number, bid, entry)
      progress = true
    else
      bid.ahead = 0
    end
  end
end

local used = {}  -- arguments
for queue, members in pairs(leaving) do
  in_parts(members, function(...) redis.call('ZREM', queue_key[queue], ...) end)
  table.insert(used, math.floor(expires / 1000000))  -- not pruned before it can be back
  table.insert(used, queue)
end
in_parts(used, function(...) redis.call('ZADD', key.used, 'GT', ...) end)
if #lot > 0 then redis.call('ZADD', key.claims, expires, cmsgpack.pack(lot)) end
in_parts(new_holders, function(...) redis.call('HSET', key.holders, ...) end)
save_tags()
answer[1] = redis.call('ZRANGE', key.delayed, 0, 0, 'WITHSCORES')[2] or false
for number, class in ipairs(request.classes) do
  if candidate(class.view, 1) then table.insert(answer[2], number) end
end
return answer
