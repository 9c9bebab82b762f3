-- Goes before every script of the queue. The keys and what they hold are listed in redis_queue.py.
local key = {
  entries = KEYS[1], index = KEYS[2], claims = KEYS[3], holders = KEYS[4], delayed = KEYS[5],
  reservations = KEYS[6], fair = KEYS[7], queues = KEYS[8], used = KEYS[9], version = KEYS[10],
}
local request = cmsgpack.unpack(ARGV[1])
local channel = ARGV[2]

-- The queues that this call may touch: name to key.
local queue_key = {}
for i, name in ipairs(request.queues) do queue_key[name] = KEYS[10 + i] end

-- Positions in an entry's record (records.py).
local MEMBER, QUEUE, PROJECT, ENQUEUED, CHARGE, CPU, MEMORY, DISK, ENVIRONMENT = 1, 2, 3, 4, 5, 6, 7, 8, 9
local PACKED = 18  -- {cpu, memory, disk}, or nothing: as much as asked for

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

-- A claim is undone: the entry is back in its old place, and its project is not charged for it.
local function put_back(id, holder)
  local entry = read(id)
  local queue = entry and queue_key[entry[QUEUE]]
  if entry and not queue then return 0 end
  redis.call('ZREM', key.claims, id)
  redis.call('HDEL', key.holders, id)
  if not entry then return 0 end
  redis.call('ZADD', queue, 0, entry[MEMBER])
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

-- The second phase of the claims that the request holds as {id, worker}: their entries are forgotten.
local function confirm_claims()
  local confirmed = {}
  for _, item in ipairs(request.claims) do
    if claim_of(item[1], item[2]) then table.insert(confirmed, item[1]) end
  end
  forget(confirmed)
end
