-- What one class of workers would be given, in order: entries are read as they are needed.
--
-- A line is sorted by tag, then by age; the first is at its end, where it is taken without moving others. What is in a line
-- only ever moves back, so it is enough to look at the first: when it has moved on, it is put in again.

local function put_in(line, item)
  local tag, age = item.tag, item.age
  local low, high = 1, #line + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local other = line[middle]
    if tag < other.tag or (tag == other.tag and age < other.age) then low = middle + 1 else high = middle end
  end
  table.insert(line, low, item)
end

-- `look` brings an item up to date, and tells whether there is anything left of it.
local function first_of(line, look)
  while #line > 0 do
    local item = line[#line]
    local age = item.age
    local is_left = look(item)
    if is_left and item.age == age then return item end
    line[#line] = nil
    if is_left then put_in(line, item) end
  end
  return nil
end

local window_size = request.look_ahead + 1
local taken = {}  -- members that are in their queues until the end of this call only
local leaving = {}  -- queue to these members

local function leave(queue, member)
  taken[member] = true
  leaving[queue] = leaving[queue] or {}
  table.insert(leaving[queue], member)
end

-- Those of a priority whose resources others have are looked past, but not all of them.
local function skip_band(flow)
  flow.from = redis.call('ZLEXCOUNT', queue_key[flow.queue], '-', '(' .. flow.band .. ';')  -- ';' follows ':'
  flow.ahead, flow.at, flow.is_read, flow.skipped = {}, 1, false, 0
end

-- Goes to the first member of a queue that nobody has taken.
local function look_at_queue(flow)
  while true do
    if flow.skipped == window_size then skip_band(flow) end
    local member = flow.ahead[flow.at]
    if not member then
      if flow.is_read then return false end
      flow.from, flow.reads, flow.at = flow.from + #flow.ahead, math.min(flow.reads * 4, 64), 1
      flow.ahead = redis.call('ZRANGE', queue_key[flow.queue], flow.from, flow.from + flow.reads - 1)
      flow.is_read = #flow.ahead < flow.reads
    elseif taken[member] or (flow.uses and skips(flow, member)) then
      flow.at = flow.at + 1
    else
      flow.age = member
      return true
    end
  end
end

-- The same within the priority that is open; what has a lower one is for later.
local function look_at_flow(flow)
  if not look_at_queue(flow) then return false end
  local view = flow.view
  if band_of(flow.age) == view.band then return true end
  table.insert(view.later, flow)
  return false
end

-- A project over all queues of the class.
local function look_at_project(project)
  local flow = first_of(project.flows, look_at_flow)
  project.flow, project.age = flow, flow and flow.age
  return flow ~= nil
end

local function flows_of(view)
  local flows = {}
  for _, queue in ipairs(view.class.queues) do
    local ahead = redis.call('ZRANGE', queue_key[queue], 0, 1)
    if ahead[1] then
      table.insert(flows, {
        view = view, queue = queue, project = project_of(queue), uses = request.uses[queue], skipped = 0, tag = 0,
        ahead = ahead, at = 1, from = 0, reads = 2, is_read = not ahead[2],
      })
    end
  end
  return flows
end

-- Open the next lower priority that has entries.
local function open_band(view)
  local flows, band = {}, nil
  for _, flow in ipairs(view.later or flows_of(view)) do
    if look_at_queue(flow) then
      table.insert(flows, flow)
      if not band or band_of(flow.age) < band then band = band_of(flow.age) end
    end
  end
  view.band, view.later = band, {}
  local projects = {}
  for _, flow in ipairs(flows) do
    if band_of(flow.age) == band then
      local name = flow.project
      projects[name] = projects[name] or {flows = {}, tag = start_tag(view.class, band, name)}
      put_in(projects[name].flows, flow)
    else
      table.insert(view.later, flow)
    end
  end
  for _, project in pairs(projects) do
    if look_at_project(project) then put_in(view.projects, project) end
  end
  return band ~= nil
end

local function following(view)
  while true do
    local project = first_of(view.projects, look_at_project)
    if project then
      local flow, member = project.flow, project.age
      flow.at = flow.at + 1
      local id = id_of(member)
      local record = redis.call('HGET', key.entries, id)
      if record then
        local kind = kind_of(record:sub(#member + 2))
        project.tag = project.tag + kind.charge
        table.remove(view.projects)
        put_in(view.projects, project)
        return {id = id, member = member, kind = kind}
      end
      leave(flow.queue, member)
    elseif not open_band(view) then
      return nil
    end
  end
end

-- Whether it cannot have its resources any more: others were given them meanwhile.
local function lacks_resources(entry)
  local uses = entry.kind.uses
  return uses and not may_have(uses, holder_of(entry.id), entry.member)
end

-- The i-th entry that the class would be given.
local function candidate(view, i)
  while view.window[i] and (taken[view.window[i].member] or lacks_resources(view.window[i])) do
    table.remove(view.window, i)
  end
  if not view.window[i] then view.window[i] = following(view) end
  return view.window[i]
end
