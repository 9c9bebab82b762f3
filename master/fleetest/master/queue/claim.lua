-- Hands out entries to workers.
--
-- request: version, now (the master's clock), look_ahead, due_limit, claim_ttl, reserve_after, reservation_ttl (all in
-- microseconds), classes = {{name, queues}, ...}, bids = {{worker, class, shards, free, capacity, warm}, ...}, claims =
-- those to confirm first, as in confirm.lua, uses = {queue = {{name, access, amount, size}, ...}} of those queues whose
-- entries use named resources
-- Answers {due, left, number of the bid, record, number of the bid, record, ...}: `due` is when the first delayed entry
-- joins its queue (the master's clock), `left` the numbers of the classes for which something still waits. False: read
-- the list of queues again.
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
local answer = {false, {}}

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
  local name, access, amount, size = unpack(use)
  local owner, shards, used = unpack(state_of(name))
  if access == 'exclusive' then
    if shards > 0 and owner ~= holder then return false end
  elseif owner ~= '' or (access == 'counted' and used + amount > size) then
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
    local first = redis.call('ZRANGEBYLEX', queue_key[queue], view.from, '+', 'LIMIT', 0, 1)[1]
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

-- The project's oldest entry, over all queues.
local function oldest(project)
  local best, best_age
  for _, flow in ipairs(project.flows) do
    local member = head(flow)
    local age = member and member:sub(flow.prefix + 1)
    if age and (not best or age < best_age) then best, best_age = flow, age end
  end
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
    asked = asked, packed = record[PACKED] or asked, environment = record[ENVIRONMENT], uses = record[USES],
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

local reservation_of = {}  -- worker to {id, need}
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

-- What others than the holder of its reservation may use.
local function room(bid)
  local held = reservation_of[bid.worker]
  if not held then return bid.free end
  return {bid.free[1] - held.need[1], bid.free[2] - held.need[2], bid.free[3] - held.need[3]}
end

local reserved = {}  -- ids that have a reservation now

local function reserve(bid, id, need)
  reservation_of[bid.worker], reserved_worker[id], reserved[id] = {id = id, need = need}, bid.worker, true
  local expires = now + request.reservation_ttl
  redis.call('HSET', key.reservations, id, cmsgpack.pack({bid.worker, expires, need[1], need[2], need[3]}))
end

local function cancel_reservation(id)
  if not reserved[id] then return end
  reserved[id] = nil
  redis.call('HDEL', key.reservations, id)
  if reserved_worker[id] then
    reservation_of[reserved_worker[id]] = nil
    reserved_worker[id] = nil
  end
end

local function read_reservations()
  local all = redis.call('HGETALL', key.reservations)
  for i = 1, #all, 2 do
    local worker, expires, cpu, memory, disk = unpack(cmsgpack.unpack(all[i + 1]))
    reserved[all[i]] = true
    if expires < now then
      cancel_reservation(all[i])
    else
      reservation_of[worker], reserved_worker[all[i]] = {id = all[i], need = {cpu, memory, disk}}, worker
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
  if best then reserve(best, entry.id, takes(entry, best)) end
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
  elseif bid.shards > 0 and fits(takes(entry, bid), bid.free) then
    give(number, bid, entry)
  else
    reserve(bid, held.id, takes(entry, bid))
  end
end

-- The first that fits; among those of its priority within the window, one whose environment is warm.
local function choose(bid)
  local view, space, first = bid.class.view, room(bid), nil
  for i = 1, window_size do
    local entry = candidate(view, i)
    if not entry or (first and entry.band ~= first.band) then break end
    if fits(entry.asked, bid.capacity) and fits(takes(entry, bid), space) then
      if bid.warm[entry.environment] then return entry end
      first = first or entry
      if not bid.warm_any then break end
    end
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
    if aged and not reserved_worker[entry.id] then reserve_for(entry) end
  end
end

-- In rounds, so that every worker gets one before any gets two.
local progress = true
while progress do
  progress = false
  for number, bid in ipairs(request.bids) do
    local entry = bid.shards > 0 and choose(bid)
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
