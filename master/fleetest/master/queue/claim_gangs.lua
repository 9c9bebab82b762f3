-- Entries that are claimed together or not at all. Only the first is in the queue, and knows the others, which are its like.

-- How many of its entries this room, and these slots, are enough for.
local function seats_in(entry, bid, space, seats)
  local kind = entry.kind
  if not (bid.class.satisfies[kind.queue] and fits(kind.asked, bid.capacity)) then return 0 end
  local need = takes(kind, bid)
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
  for _, id in ipairs(entry.kind.members) do
    local member, kind = read(id)
    if not member or redis.call('HEXISTS', key.holders, id) == 1 then return nil end
    table.insert(members, {id = id, member = member, kind = kind})
  end
  return members
end

-- Each worker gets one before any gets two.
local function place_gang(entry)
  local seats, total = free_seats(entry)
  local members = total >= #entry.kind.members and members_of(entry)
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
  local most, possible, missing = {}, 0, #entry.kind.members
  for number, bid in ipairs(request.bids) do
    most[number] = seats_in(entry, bid, bid.capacity, math.max(bid.slots, bid.shards))
    possible = possible + most[number]
  end
  for _, worker in pairs(reserved[entry.id] or {}) do missing = missing - reservation_of[worker].seats end
  if total >= #entry.kind.members or possible < #entry.kind.members then return end
  local order = {}
  for number in ipairs(request.bids) do order[number] = number end
  table.sort(order, function(a, b) return seats[a] > seats[b] or (seats[a] == seats[b] and a < b) end)
  for _, number in ipairs(order) do
    local bid = request.bids[number]
    local kept = math.min(missing, most[number])
    if kept > 0 and not reservation_of[bid.worker] then
      local need = takes(entry.kind, bid)
      reserve(bid, entry.id, {need[1] * kept, need[2] * kept, need[3] * kept}, kept)
      missing = missing - kept
    end
  end
end
