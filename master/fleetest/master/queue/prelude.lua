-- Goes before every script of the queue. The keys and what they hold are listed in redis_queue.py.
local key = {
  entries = KEYS[1], index = KEYS[2], claims = KEYS[3], holders = KEYS[4], delayed = KEYS[5],
  reservations = KEYS[6], fair = KEYS[7], queues = KEYS[8], used = KEYS[9], version = KEYS[10],
  uses = KEYS[11], holds = KEYS[12], resources = KEYS[13],
}
local request = cmsgpack.unpack(ARGV[1])
local channel = ARGV[2]

-- The queues that this call may touch: name to key.
local queue_key = {}
for i, name in ipairs(request.queues) do queue_key[name] = KEYS[13 + i] end

-- Positions in an entry's record (records.py).
local MEMBER, QUEUE, PROJECT, ENQUEUED, CHARGE, CPU, MEMORY, DISK, ENVIRONMENT = 1, 2, 3, 4, 5, 6, 7, 8, 9
local PACKED = 18  -- {cpu, memory, disk}, or nothing: as much as asked for
local USES = 19  -- {name, access, amount, size, together} of each named resource, or nothing
local FOLLOWS = 20  -- whether it is in no queue, but claimed with the first of its gang
local MEMBERS = 21  -- of the first of a gang: the ids of all of them, its own first; else nothing

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function read(id)
  local raw = redis.call('HGET', key.entries, id)
  return raw and cmsgpack.unpack(raw), raw
end

-- Makes every claimer read the list of queues again. A time, since a counter would repeat itself after FLUSHALL.
local function queues_changed()
  redis.call('SET', key.version, string.format('%d', microseconds()))
end

local function version_is_stale()
  return (redis.call('GET', key.version) or '') ~= request.version
end

-- Delayed entries whose time has come take their place. Those of queues that this call may not touch wait.
local function move_due(limit)
  local moved = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key.delayed, '-inf', request.now, 'LIMIT', 0, limit)) do
    local entry = read(id)
    local queue = entry and queue_key[entry[QUEUE]]
    if queue then
      redis.call('ZADD', queue, 0, entry[MEMBER])
      moved = moved + 1
    end
    if queue or not entry then redis.call('ZREM', key.delayed, id) end
  end
  return moved
end

-- Named resources. Of each that somebody has, `resources` holds under =NAME {who has it exclusively or '', how many shards
-- have it, how much of it, how many of the shards are of who has it exclusively}; under ?NAME {id, order, until when, holder} of the entry that comes first in line for it; under
-- ! that all this is known, and under ~ who looks for it just now. `holds` is id to {token, holder, uses}.

local states = {}

local function state_of(name)
  if not states[name] then
    local raw = redis.call('HGET', key.resources, '=' .. name)
    states[name] = raw and cmsgpack.unpack(raw) or {'', 0, 0, 0}
  end
  return states[name]
end

local function change(uses, holder, shards)
  for _, use in ipairs(uses) do
    local name, access, amount = unpack(use)
    local state = state_of(name)
    if access == 'exclusive' and state[1] == '' then state[1] = holder end
    if state[1] == holder then state[4] = state[4] + shards end
    if state[4] == 0 then state[1] = '' end
    state[2], state[3] = state[2] + shards, state[3] + shards * amount
    if state[2] > 0 then
      redis.call('HSET', key.resources, '=' .. name, cmsgpack.pack(state))
    else
      states[name] = nil
      redis.call('HDEL', key.resources, '=' .. name)
    end
  end
end

-- The task of a run: an id without the number of the shard.
local function holder_of(id) return id:match('^(.*)%%23') end

local function hold(id, token, uses)
  redis.call('HSET', key.holds, id, cmsgpack.pack({token, holder_of(id), uses}))
  change(uses, holder_of(id), 1)
end

local function held_by(id)
  local raw = redis.call('HGET', key.holds, id)
  return raw and cmsgpack.unpack(raw)
end

-- Whatever came after the attempt of this token stays.
local function drop_hold(id, token)
  local held = held_by(id)
  if not held or held[1] ~= token then return false end
  redis.call('HDEL', key.holds, id)
  change(held[3], held[2], -1)
  return true
end

-- A claim is undone: the entry is back in its old place, and its project is not charged for it.
local function put_back(id, holder)
  local entry = read(id)
  local queue = entry and queue_key[entry[QUEUE]]
  if entry and not queue then return 0 end
  redis.call('ZREM', key.claims, id)
  redis.call('HDEL', key.holders, id)
  if not entry then return 0 end
  if entry[USES] then drop_hold(id, 0) end
  if not entry[FOLLOWS] then redis.call('ZADD', queue, 0, entry[MEMBER]) end
  if holder and redis.call('HEXISTS', key.fair, holder[2]) == 1 then
    redis.call('HINCRBYFLOAT', key.fair, holder[2], -entry[CHARGE])
  end
  return 1
end

-- The holder's record {worker, fairness field}, if this worker is the one who has claimed it.
local function claim_of(id, worker)
  local raw = redis.call('HGET', key.holders, id)
  local holder = raw and cmsgpack.unpack(raw)
  return holder and holder[1] == worker and holder
end

-- Calls `command` with the arguments in parts that Lua's stack holds; their number is even, so that pairs stay together.
local function in_parts(arguments, command)
  for first = 1, #arguments, 1000 do
    command(unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

local function forget(ids)
  for _, name in ipairs({key.entries, key.holders}) do
    in_parts(ids, function(...) redis.call('HDEL', name, ...) end)
  end
  for _, name in ipairs({key.index, key.claims, key.delayed}) do
    in_parts(ids, function(...) redis.call('ZREM', name, ...) end)
  end
end

-- The second phase of the claims that the request holds as {id, worker, uses anything}: their entries are forgotten.
local function confirm_claims()
  local confirmed = {}
  for _, item in ipairs(request.claims) do
    if claim_of(item[1], item[2]) then
      table.insert(confirmed, item[1])
      if item[3] then drop_hold(item[1], 0) end
    end
  end
  forget(confirmed)
end
