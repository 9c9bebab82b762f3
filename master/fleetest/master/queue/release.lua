-- request: claims = {{id, worker}, ...}
local returned = 0
for _, item in ipairs(request.claims) do
  local holder = claim_of(item[1], item[2])
  if holder then returned = returned + put_back(item[1], holder) end
end
if returned > 0 then redis.call('PUBLISH', channel, '') end
