-- Whether a worker has room for an entry, and what is reserved there.
--
-- Where an entry may go is judged by what it asked for, whether there is room for it by what it takes there: what was
-- measured of it, and no more than the worker has.

local reservation_of = {}  -- worker to {id, need, seats}
local reserved_worker = {}  -- id to worker

local function takes(kind, bid)
  local need = bid.takes[kind]
  if not need then
    need = {}
    for i = 1, 3 do need[i] = math.min(kind.packed[i], bid.capacity[i]) end
    bid.takes[kind] = need
  end
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
    if bid.class.satisfies[entry.kind.queue] and fits(entry.kind.asked, bid.capacity) then
      local need = takes(entry.kind, bid)
      if fits(need, room(bid)) then return end
      if not reservation_of[bid.worker] then
        local missing = shortage(bid, need)
        if not best or missing < least then best, least = bid, missing end
      end
    end
  end
  if best then reserve(best, entry.id, takes(entry.kind, best), 0) end
end
