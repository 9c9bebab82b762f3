-- Hands out entries to workers.
--
-- request: version, now (the master's clock), look_ahead, due_limit, claim_ttl, reserve_after, reservation_ttl (all in
-- microseconds), classes = {{name, queues}, ...}, bids = {{worker, class, shards, slots, free, capacity, warm}, ...}, claims =
-- those to confirm first, as in confirm.lua, uses = {queue = {{name, access, amount, size, together}, ...}} of those queues whose
-- entries use named resources
-- Answers {due, left, gangs, number of the bid, record, number of the bid, record, ...}: `due` is when the first delayed entry
-- joins its queue (the master's clock), `left` the numbers of the classes for which something still waits, `gangs` whether a
-- gang does. False: read the list of queues again.
--
-- Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996, section 2): the server is a class of workers, all that
-- satisfy the same queues; a flow is a project within a priority band. A flow's next entry has the start tag
-- S = max(v, F), where v is the start tag of the entry served last and F the flow's last finish tag; the least start tag is
-- served first, and leaves F = S + cost / weight. Tags are made when an entry is served, not when it arrives (the order
-- is the same), so that entries removed from the queue cost their project nothing.
confirm_claims()
if version_is_stale() then return false end
move_due(request.due_limit)

local now = microseconds()
local window_size = request.look_ahead + 1
local taken = {}  -- members claimed by this call
local answer = {false, {}, 0}

-- Tags ---------------------------------------------------------------------------------------------------------------

local tags, changed_tags = {}, {}

local function tag(field)
  if not tags[field] then tags[field] = tonumber(redis.call('HGET', key.fair, field) or 0) end
  return tags[field]
end

local function set_tag(field, value)
  tags[field] = value
  changed_tags[field] = true
end

local function start_tag(class, band, project)
  local clock = class.name .. ':' .. band
  return math.max(tag(clock), tag(clock .. ':' .. project))
end

-- Answers the field that was charged.
local function charge(class, entry)
  local clock = class.name .. ':' .. entry.band
  local flow = clock .. ':' .. entry.project
  local start = math.max(tag(clock), tag(flow))
  set_tag(clock, start)
  set_tag(flow, start + entry.charge)
  return flow
end

local function save_tags()
  -- Tags of classes that are no more pile up. To forget all debts now and then is cheaper than to track them.
  if redis.call('HLEN', key.fair) > 50000 then redis.call('DEL', key.fair) end
  for field in pairs(changed_tags) do redis.call('HSET', key.fair, field, tags[field]) end
end

-- Named resources ---------------------------------------------------------------------------------------------------------

-- Entries that use the same resources have a queue of their own, so that others need not look past them. In it, those that
-- cannot have them now are skipped; the first that has been skipped for long comes first in line.

local all_is_known = next(request.uses) ~= nil and redis.call('HEXISTS', key.resources, '!') == 1
local first_in_line = {}  -- name to what is under ?name, or false

local function first_for(name)
  if first_in_line[name] == nil then
    local raw = redis.call('HGET', key.resources, '?' .. name)
    local first = raw and cmsgpack.unpack(raw)
    if first and (first[3] < now or redis.call('HEXISTS', key.entries, first[1]) == 0) then
      redis.call('HDEL', key.resources, '?' .. name)
      first = false
    end
    first_in_line[name] = first or false
  end
  return first_in_line[name]
end

local function is_free(use, holder, order)
  local name, access, amount, size, together = unpack(use)
  local owner, shards, used = unpack(state_of(name))
  if access == 'exclusive' then
    if shards > 0 and owner ~= holder then return false end
  elseif owner ~= '' or (access == 'counted' and used + amount * (together or 1) > size) then
    return false
  end
  local first = first_for(name)
  return not first or order <= first[2] or holder == first[4]
end

local function may_have(uses, holder, order)
  if not all_is_known then return false end
  for _, use in ipairs(uses) do
    if not is_free(use, holder, order) then return false end
  end
  return true
end

-- Who comes earlier in order takes the place of who comes later, so that two never wait for one another.
local function line_up(id, order, uses)
  for _, use in ipairs(uses) do
    local first = first_for(use[1])
    if not first or order <= first[2] then
      first = {id, order, now + request.reservation_ttl, holder_of(id)}
      first_in_line[use[1]] = first
      redis.call('HSET', key.resources, '?' .. use[1], cmsgpack.pack(first))
    end
  end
end

local function leave_line(id, uses)
  for _, use in ipairs(uses) do
    local first = first_for(use[1])
    if first and first[1] == id then
      first_in_line[use[1]] = false
      redis.call('HDEL', key.resources, '?' .. use[1])
    end
  end
end

local function id_of(member) return member:match('^%d+:[^:]*:%d+:%d+:(.*)$') end

-- Over all projects and queues: priority, then age.
local function order_of(member, prefix) return member:sub(1, 4) .. member:sub(prefix + 1) end

local function could_have_room(queue, record)
  for _, bid in ipairs(request.bids) do
    local enough = record[CPU] <= bid.capacity[1] and record[MEMORY] <= bid.capacity[2] and record[DISK] <= bid.capacity[3]
    if bid.class.satisfies[queue] and enough then return true end
  end
  return false
end

local function skips(flow, member)
  local id, order = id_of(member), order_of(member, flow.prefix)
  if may_have(flow.uses, holder_of(id), order) then return false end
  flow.skipped = flow.skipped + 1
  if flow.skipped == 1 then
    local record = read(id)
    local aged = record and request.now - record[ENQUEUED] > request.reserve_after
    if aged and could_have_room(flow.queue, record) then line_up(id, order, flow.uses) end
  end
  return true
end

-- A view is what one class of workers would be given, in order: its first entries are read as they are needed. ---------

-- The next member of a project in one queue that nobody has taken.
local function head(flow)
  while flow.skipped < window_size do
    local member = flow.ahead[flow.at]
    if not member then
      flow.ahead = redis.call('ZRANGEBYLEX', queue_key[flow.queue], '(' .. flow.last, flow.stop, 'LIMIT', 0, window_size)
      flow.at = 1
      if #flow.ahead == 0 then return nil end
    elseif taken[member] or (flow.uses and skips(flow, member)) then
      flow.last, flow.at = member, flow.at + 1
    else
      return member
    end
  end
  return nil
end

local function add_flow(view, queue, first)
  local prefix = first:match('^%d+:[^:]*:')
  local name = prefix:sub(5, -2)
  local project = view.by_name[name]
  if not project then
    project = {name = name, flows = {}, tag = start_tag(view.class, view.band, name)}
    view.by_name[name] = project
    table.insert(view.projects, project)
  end
  local past = prefix:sub(1, -2) .. ';'  -- ';' follows ':'
  table.insert(project.flows, {
    queue = queue, prefix = #prefix, stop = '(' .. past, ahead = {first}, at = 1, last = first,
    uses = request.uses[queue], skipped = 0,
  })
  return past
end

-- Open the next lower priority that has entries.
local function open_band(view)
  local firsts, band = {}, nil
  for _, queue in ipairs(view.class.queues) do
    local first
    if view.from == '-' then
      first = redis.call('ZRANGE', queue_key[queue], 0, 0)[1]  -- the same, and found without a search
    else
      first = redis.call('ZRANGEBYLEX', queue_key[queue], view.from, '+', 'LIMIT', 0, 1)[1]
    end
    firsts[queue] = first
    if first and (not band or first:sub(1, 3) < band) then band = first:sub(1, 3) end
  end
  if not band then return false end
  view.band, view.from, view.projects, view.by_name = band, '[' .. band .. ';', {}, {}
  for _, queue in ipairs(view.class.queues) do
    local first = firsts[queue]
    while first and first:sub(1, 3) == band do
      local past = add_flow(view, queue, first)
      first = redis.call('ZRANGEBYLEX', queue_key[queue], '[' .. past, '(' .. band .. ';', 'LIMIT', 0, 1)[1]
    end
  end
  return true
end

-- The project's oldest entry, over all queues. It stays the oldest until it is taken: heads of flows only move on.
local function oldest(project)
  if project.oldest and head(project.oldest) == project.member then return project.oldest, project.age end
  local best, best_age, best_member
  for _, flow in ipairs(project.flows) do
    local member = head(flow)
    if member and member ~= flow.aged then flow.aged, flow.age = member, member:sub(flow.prefix + 1) end
    if member and (not best or flow.age < best_age) then best, best_age, best_member = flow, flow.age, member end
  end
  project.oldest, project.age, project.member = best, best_age, best_member
  return best, best_age
end

local function fairest(view)
  local project, flow, age
  for i = #view.projects, 1, -1 do
    local other = view.projects[i]
    local its_flow, its_age = oldest(other)
    if not its_flow then
      table.remove(view.projects, i)
    elseif not project or other.tag < project.tag or (other.tag == project.tag and its_age < age) then
      project, flow, age = other, its_flow, its_age
    end
  end
  return project, flow
end

local function entry_of(id, record, raw)
  local asked = {record[CPU], record[MEMORY], record[DISK]}
  return {
    id = id, raw = raw, member = record[MEMBER], queue = record[QUEUE], project = record[PROJECT],
    band = record[MEMBER]:sub(1, 3), enqueued = record[ENQUEUED], charge = record[CHARGE],
    asked = asked, packed = record[PACKED] or asked, environment = record[ENVIRONMENT],
    uses = record[USES], members = record[MEMBERS],
  }
end

local function following(view)
  while true do
    local project, flow = fairest(view)
    if project then
      local member = flow.ahead[flow.at]
      flow.last, flow.at = member, flow.at + 1
      local id = id_of(member)
      local record, raw = read(id)
      if record then
        project.tag = project.tag + record[CHARGE]
        return entry_of(id, record, raw)
      end
      redis.call('ZREM', queue_key[flow.queue], member)
    elseif not open_band(view) then
      return nil
    end
  end
end

-- Whether it cannot have its resources any more: others were given them meanwhile.
local function lacks_resources(entry)
  if not entry.uses then return false end
  local prefix = #entry.member:match('^%d+:[^:]*:')
  return not may_have(entry.uses, holder_of(entry.id), order_of(entry.member, prefix))
end

-- The i-th entry that the class would be given.
local function candidate(view, i)
  while view.window[i] and (taken[view.window[i].member] or lacks_resources(view.window[i])) do
    table.remove(view.window, i)
  end
  if not view.window[i] then view.window[i] = following(view) end
  return view.window[i]
end

-- Room and reservations --------------------------------------------------------------------------------------------------

-- Where an entry may go is judged by what it asked for, whether there is room for it by what it takes there: what was
-- measured of it, and no more than the worker has.

local reservation_of = {}  -- worker to {id, need, seats}
local reserved_worker = {}  -- id to worker

local function fits(need, room)
  for i = 1, 3 do
    if need[i] > 0 and need[i] > room[i] then return false end
  end
  return true
end

local function takes(entry, bid)
  local need = {}
  for i = 1, 3 do need[i] = math.min(entry.packed[i], bid.capacity[i]) end
  return need
end

-- What others than the holder of its reservation may use, or what the entry of this id may.
local function room(bid, id)
  local held = reservation_of[bid.worker]
  if not held or held.id == id then return bid.free end
  return {bid.free[1] - held.need[1], bid.free[2] - held.need[2], bid.free[3] - held.need[3]}
end

-- As `room`, in slots; a single entry reserves none.
local function slots(bid, id)
  local held = reservation_of[bid.worker]
  if not held or held.id == id then return bid.shards end
  return bid.shards - held.seats
end

local reserved = {}  -- id to {field of `reservations` = worker or true}

-- Seats are slots of a gang, which may have several workers reserved.
local function reserve(bid, id, need, seats)
  local field = seats > 0 and id .. '@' .. bid.worker or id
  reservation_of[bid.worker], reserved_worker[id] = {id = id, need = need, seats = seats}, bid.worker
  reserved[id] = reserved[id] or {}
  reserved[id][field] = bid.worker
  local expires = now + request.reservation_ttl
  redis.call('HSET', key.reservations, field, cmsgpack.pack({bid.worker, expires, need[1], need[2], need[3], seats}))
end

local function cancel_reservation(id)
  for field, worker in pairs(reserved[id] or {}) do
    redis.call('HDEL', key.reservations, field)
    reservation_of[worker] = nil
  end
  reserved[id], reserved_worker[id] = nil, nil
end

local function read_reservations()
  local all = redis.call('HGETALL', key.reservations)
  for i = 1, #all, 2 do
    local worker, expires, cpu, memory, disk, seats = unpack(cmsgpack.unpack(all[i + 1]))
    local id = all[i]:match('^[^@]*')
    if expires < now then
      redis.call('HDEL', key.reservations, all[i])
    else
      reserved[id] = reserved[id] or {}
      reserved[id][all[i]] = worker
      reservation_of[worker], reserved_worker[id] = {id = id, need = {cpu, memory, disk}, seats = seats or 0}, worker
    end
  end
end

-- How far the worker is from having room, as a part of its capacity.
local function shortage(bid, need)
  local worst = 0
  for i = 1, 3 do
    if need[i] > 0 then worst = math.max(worst, (need[i] - bid.free[i]) / bid.capacity[i]) end
  end
  return worst
end

-- An aged entry that has room nowhere reserves the worker that will soonest have it.
local function reserve_for(entry)
  local best, least
  for _, bid in ipairs(request.bids) do
    if bid.class.satisfies[entry.queue] and fits(entry.asked, bid.capacity) then
      local need = takes(entry, bid)
      if fits(need, room(bid)) then return end
      if not reservation_of[bid.worker] then
        local missing = shortage(bid, need)
        if not best or missing < least then best, least = bid, missing end
      end
    end
  end
  if best then reserve(best, entry.id, takes(entry, best), 0) end
end

-- Claims -----------------------------------------------------------------------------------------------------------------

-- Written in few commands at the end: each costs as much as several more arguments.
local given = {}  -- queue to members
local claims, holders = {}, {}  -- arguments

local function give(number, bid, entry)
  taken[entry.member] = true
  cancel_reservation(entry.id)
  given[entry.queue] = given[entry.queue] or {}
  table.insert(given[entry.queue], entry.member)
  table.insert(claims, now + request.claim_ttl)
  table.insert(claims, entry.id)
  table.insert(holders, entry.id)
  table.insert(holders, cmsgpack.pack({bid.worker, charge(bid.class, entry)}))
  if entry.uses then
    hold(entry.id, 0, entry.uses)
    leave_line(entry.id, entry.uses)
  end
  local need = takes(entry, bid)
  for i = 1, 3 do bid.free[i] = bid.free[i] - need[i] end
  bid.shards = bid.shards - 1
  table.insert(answer, number)
  table.insert(answer, entry.raw)
end

-- Gangs ------------------------------------------------------------------------------------------------------------------

-- Entries that are claimed together or not at all. Only the first is in the queue, and knows the others, which are its like.

-- How many of its entries this room, and these slots, are enough for.
local function seats_in(entry, bid, space, seats)
  if not (bid.class.satisfies[entry.queue] and fits(entry.asked, bid.capacity)) then return 0 end
  local need = takes(entry, bid)
  for i = 1, 3 do
    if need[i] > 0 then seats = math.min(seats, math.floor(space[i] / need[i])) end
  end
  return math.max(seats, 0)
end

local function free_seats(entry)
  local seats, total = {}, 0
  for number, bid in ipairs(request.bids) do
    seats[number] = seats_in(entry, bid, room(bid, entry.id), slots(bid, entry.id))
    total = total + seats[number]
  end
  return seats, total
end

-- Nothing when one of them is not there, or still claimed.
local function members_of(entry)
  local members = {}
  for _, id in ipairs(entry.members) do
    local record, raw = read(id)
    if not record or redis.call('HEXISTS', key.holders, id) == 1 then return nil end
    table.insert(members, entry_of(id, record, raw))
  end
  return members
end

-- Each worker gets one before any gets two.
local function place_gang(entry)
  local seats, total = free_seats(entry)
  local members = total >= #entry.members and members_of(entry)
  if not members then return false end
  local placed = 0
  while placed < #members do
    for number, bid in ipairs(request.bids) do
      if placed < #members and seats[number] > 0 then
        placed, seats[number] = placed + 1, seats[number] - 1
        give(number, bid, members[placed])
      end
    end
  end
  return true
end

-- An aged gang keeps workers for itself, if all of them together could ever have room for it.
local function reserve_gang(entry)
  local seats, total = free_seats(entry)
  local most, possible, missing = {}, 0, #entry.members
  for number, bid in ipairs(request.bids) do
    most[number] = seats_in(entry, bid, bid.capacity, math.max(bid.slots, bid.shards))
    possible = possible + most[number]
  end
  for _, worker in pairs(reserved[entry.id] or {}) do missing = missing - reservation_of[worker].seats end
  if total >= #entry.members or possible < #entry.members then return end
  local order = {}
  for number in ipairs(request.bids) do order[number] = number end
  table.sort(order, function(a, b) return seats[a] > seats[b] or (seats[a] == seats[b] and a < b) end)
  for _, number in ipairs(order) do
    local bid = request.bids[number]
    local kept = math.min(missing, most[number])
    if kept > 0 and not reservation_of[bid.worker] then
      local need = takes(entry, bid)
      reserve(bid, entry.id, {need[1] * kept, need[2] * kept, need[3] * kept}, kept)
      missing = missing - kept
    end
  end
end

-- The entry for which the worker is reserved goes first, or keeps its reservation.
local function serve_reservation(number, bid)
  local held = reservation_of[bid.worker]
  if not held then return end
  local record, raw = read(held.id)
  local waits = record and bid.class.satisfies[record[QUEUE]] and not taken[record[MEMBER]]
    and redis.call('ZSCORE', queue_key[record[QUEUE]], record[MEMBER])
  local entry = waits and entry_of(held.id, record, raw)
  if not entry or not fits(entry.asked, bid.capacity) or lacks_resources(entry) then
    cancel_reservation(held.id)
  elseif entry.members then
    if not place_gang(entry) then reserve(bid, held.id, held.need, held.seats) end
  elseif bid.shards > 0 and fits(takes(entry, bid), bid.free) then
    give(number, bid, entry)
  else
    reserve(bid, held.id, takes(entry, bid), 0)
  end
end

-- The first that fits; among those of its priority within the window, one whose environment is warm. A gang that comes
-- first is given at once, perhaps to others.
local function choose(bid)
  local view, space, first = bid.class.view, room(bid), nil
  local i = 1
  while i <= window_size do
    local entry = candidate(view, i)
    if not entry or (first and entry.band ~= first.band) then break end
    if entry.members then
      -- There is only less room as this call goes on, so it is tried once.
      if not first and not entry.hopeless then
        entry.hopeless = not place_gang(entry)
        if not entry.hopeless then i = i - 1 end
        space = room(bid)
        if slots(bid) <= 0 then break end
      end
    elseif fits(entry.asked, bid.capacity) and fits(takes(entry, bid), space) then
      if bid.warm[entry.environment] then return entry end
      first = first or entry
      if not bid.warm_any then break end
    end
    i = i + 1
  end
  return first
end

for _, class in ipairs(request.classes) do
  class.satisfies = {}
  for _, queue in ipairs(class.queues) do class.satisfies[queue] = true end
  class.view = {class = class, from = '-', projects = {}, by_name = {}, window = {}}
end
for _, bid in ipairs(request.bids) do
  bid.class = request.classes[bid.class]
  bid.warm_any = next(bid.warm) ~= nil
end

read_reservations()
for number, bid in ipairs(request.bids) do serve_reservation(number, bid) end
for _, class in ipairs(request.classes) do
  for i = 1, window_size do
    local entry = candidate(class.view, i)
    if not entry then break end
    local aged = request.now - entry.enqueued > request.reserve_after
    if entry.members then
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

for queue, members in pairs(given) do
  in_parts(members, function(...) redis.call('ZREM', queue_key[queue], ...) end)
  redis.call('ZADD', key.used, 'GT', math.floor(now / 1000000), queue)
end
in_parts(claims, function(...) redis.call('ZADD', key.claims, ...) end)
in_parts(holders, function(...) redis.call('HSET', key.holders, ...) end)
save_tags()
answer[1] = redis.call('ZRANGE', key.delayed, 0, 0, 'WITHSCORES')[2] or false
for number, class in ipairs(request.classes) do
  if candidate(class.view, 1) then table.insert(answer[2], number) end
end
return answer
