-- Whose turn it is.
--
-- Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996, section 2): the server is a class of workers, all that
-- satisfy the same queues; a flow is a project within a priority band. A flow's next entry has the start tag
-- S = max(v, F), where v is the start tag of the entry served last and F the flow's last finish tag; the least start tag is
-- served first, and leaves F = S + cost / weight. Tags are made when an entry is served, not when it arrives (the order
-- is the same), so that entries removed from the queue cost their project nothing.

local now = microseconds()

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

-- Of what a kind of entries is charged to.
local function fields_of(class, kind)
  local fields = class.fields[kind]
  if not fields then
    local clock = class.name .. ':' .. kind.band
    fields = {clock = clock, flow = clock .. ':' .. kind.project}
    class.fields[kind] = fields
  end
  return fields
end

-- Answers the field that was charged.
local function charge(class, kind)
  local fields = fields_of(class, kind)
  local start = math.max(tag(fields.clock), tag(fields.flow))
  set_tag(fields.clock, start)
  set_tag(fields.flow, start + kind.charge)
  return fields.flow
end

local function save_tags()
  -- Tags of classes that are no more pile up. To forget all debts now and then is cheaper than to track them.
  if redis.call('HLEN', key.fair) > 50000 then redis.call('DEL', key.fair) end
  local arguments = {}
  for field in pairs(changed_tags) do
    table.insert(arguments, field)
    table.insert(arguments, tags[field])
  end
  in_parts(arguments, function(...) redis.call('HSET', key.fair, ...) end)
end
