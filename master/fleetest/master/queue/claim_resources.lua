-- Who may have named resources.
--
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

-- The order is that of members, over all queues.
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

local function fits(need, room)
  for i = 1, 3 do
    if need[i] > 0 and need[i] > room[i] then return false end
  end
  return true
end

local function is_aged(member) return request.now - age_of(member) > request.reserve_after end

local function could_have_room(kind)
  for _, bid in ipairs(request.bids) do
    if bid.class.satisfies[kind.queue] and fits(kind.asked, bid.capacity) then return true end
  end
  return false
end

local function skips(flow, member)
  local id = id_of(member)
  if may_have(flow.uses, holder_of(id), member) then return false end
  local band = band_of(member)
  flow.skipped = band == flow.band and flow.skipped + 1 or 1
  flow.band = band
  if flow.skipped == 1 then
    local _, kind = read(id)
    if kind and is_aged(member) and could_have_room(kind) then line_up(id, member, flow.uses) end
  end
  return true
end
