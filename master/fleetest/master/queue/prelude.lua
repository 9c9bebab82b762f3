-- Goes before every script of the queue. The keys and what they hold are listed in redis_queue.py.
local key = {
  entries = KEYS[1], claims = KEYS[2], holders = KEYS[3], delayed = KEYS[4], reservations = KEYS[5], fair = KEYS[6],
  queues = KEYS[7], used = KEYS[8], version = KEYS[9], uses = KEYS[10], holds = KEYS[11], resources = KEYS[12],
}
local FIXED = 12
local request = cmsgpack.unpack(ARGV[1])
local channel = ARGV[2]

-- The queues and the runs' indexes that this call may touch: name to key.
local queue_key, index_key = {}, {}
for i, name in ipairs(request.queues) do queue_key[name] = KEYS[FIXED + i] end
for i, run in ipairs(request.runs) do index_key[run] = KEYS[FIXED + #request.queues + i] end

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Calls `command` with the arguments in parts that Lua's stack holds; their number is even, so that pairs stay together.
local function in_parts(arguments, command)
  for first = 1, #arguments, 1000 do
    command(unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- The values of these fields of a hash; false where there is none.
local function values_of(hash, fields)
  local values = {}
  in_parts(fields, function(...)
    for _, value in ipairs(redis.call('HMGET', hash, ...)) do table.insert(values, value) end
  end)
  return values
end

-- A queue's name is SET:project.
local function project_of(queue) return queue:sub(22) end

-- What an entry has in common with its like is written the same, and read once (records.py).
local kinds = {}

local function kind_of(raw)
  local kind = kinds[raw]
  if not kind then
    local queue, priority, charge, asked, packed, environment, due, uses, follows, members =
      unpack(cmsgpack.unpack(raw), 1, 10)
    kind = {
      raw = raw, queue = queue, project = project_of(queue), band = string.format('%03d', 100 - priority), charge = charge,
      asked = asked, packed = packed or asked, environment = environment,
      due = due,  -- when it joins its queue, if it has to wait for that
      uses = uses,  -- {name, access, amount, size, together} of each named resource, or nothing
      follows = follows,  -- whether it is in no queue, but claimed with the first of its gang
      members = members,  -- of the first of a gang: the ids of all of them, its own first; else nothing
    }
    kinds[raw] = kind
  end
  return kind
end

-- Answers the entry's member of its queue, and its kind; nothing when there is no such entry.
local function read(id)
  local record = redis.call('HGET', key.entries, id)
  if not record then return nil end
  local gap = record:find('\n', 1, true)
  return record:sub(1, gap - 1), kind_of(record:sub(gap + 1))
end

-- A member is PPP:age:index:id.
local function band_of(member) return member:sub(1, 3) end

local function age_of(member) return tonumber(member:sub(5, 21)) end

local function id_of(member) return member:sub(31) end

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
    local member, kind = read(id)
    local queue = kind and queue_key[kind.queue]
    if queue then
      redis.call('ZADD', queue, 0, member)
      moved = moved + 1
    end
    if queue or not member then redis.call('ZREM', key.delayed, id) end
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

-- What a holder's record says: {worker, fairness field, until when it must be confirmed}. Many are the same.
local holders = {}

local function holder_in(raw)
  if raw and not holders[raw] then holders[raw] = cmsgpack.unpack(raw) end
  return raw and holders[raw]
end

-- The holder, if this worker is the one who has claimed it.
local function claim_of(id, worker)
  local holder = holder_in(redis.call('HGET', key.holders, id))
  return holder and holder[1] == worker and holder
end

-- A claim is undone: the entry is back in its old place, and its project is not charged for it. Answers whether it is;
-- nothing when this call may not touch its queue.
local function put_back(id, holder)
  local member, kind = read(id)
  local queue = kind and queue_key[kind.queue]
  if member and not queue then return nil end
  redis.call('HDEL', key.holders, id)
  if not member then return false end
  if kind.uses then drop_hold(id, 0) end
  if not kind.follows then redis.call('ZADD', queue, 0, member) end
  if redis.call('HEXISTS', key.fair, holder[2]) == 1 then
    redis.call('HINCRBYFLOAT', key.fair, holder[2], -kind.charge)
  end
  return true
end

-- Entries of one run.
local function forget(run, ids)
  in_parts(ids, function(...)
    redis.call('HDEL', key.entries, ...)
    redis.call('HDEL', key.holders, ...)
    redis.call('SREM', index_key[run], ...)
  end)
end

-- The second phase of the claims that the request holds as {run, worker, ids, those of them that use anything}: their
-- entries are forgotten.
local function confirm_claims()
  for _, item in ipairs(request.claims) do
    local run, worker, ids, users = unpack(item)
    local confirmed, is_confirmed = {}, {}
    for i, raw in ipairs(values_of(key.holders, ids)) do
      if raw and holder_in(raw)[1] == worker then
        table.insert(confirmed, ids[i])
        is_confirmed[ids[i]] = true
      end
    end
    for _, id in ipairs(users) do
      if is_confirmed[id] then drop_hold(id, 0) end
    end
    forget(run, confirmed)
  end
end
