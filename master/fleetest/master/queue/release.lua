-- request: claims = {{id, worker}, ...}
local returned = 0
for _, item in ipairs(request.claims) do
  local holder = claim_of(item[1], item[2])
  if holder and put_back(item[1], holder) then returned = returned + 1 end
end
if returned > 0 then redis.call('PUBLISH', channel, '') end
