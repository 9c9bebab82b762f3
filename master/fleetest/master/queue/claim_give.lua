-- Gives an entry to a worker; with a negative number, it follows another in its session, and takes no room besides.
--
-- Written in few commands at the end: each costs as much as several more arguments.
local answer = {false, {}, 0, {}}
local lot, new_holders = {}, {}  -- ids; arguments
local expires = now + request.claim_ttl
local packed_holders = {}  -- worker and fairness field to what is written of them

local function holder_record(worker, field)
  local of_worker = packed_holders[worker] or {}
  packed_holders[worker] = of_worker
  of_worker[field] = of_worker[field] or cmsgpack.pack({worker, field, expires})
  return of_worker[field]
end

local function number_of(kind)
  if not kind.number then
    table.insert(answer[4], kind.raw)
    kind.number = #answer[4]
  end
  return kind.number
end

local function give(number, bid, entry)
  local id, member, kind = entry.id, entry.member, entry.kind
  cancel_reservation(id)
  leave(kind.queue, member)
  table.insert(lot, id)
  table.insert(new_holders, id)
  table.insert(new_holders, holder_record(bid.worker, charge(bid.class, kind)))
  if kind.uses then
    hold(id, 0, kind.uses)
    leave_line(id, kind.uses)
  end
  if number > 0 then
    local need = takes(kind, bid)
    for i = 1, 3 do bid.free[i] = bid.free[i] - need[i] end
    bid.shards = bid.shards - 1
    if bid.warm[kind.environment] then bid.first = entry end
  end
  table.insert(answer, number)
  table.insert(answer, member)
  table.insert(answer, number_of(kind))
end
