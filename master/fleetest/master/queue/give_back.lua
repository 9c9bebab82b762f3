-- request: holds = {{id, token}, ...}
local dropped = false
for _, item in ipairs(request.holds) do
  dropped = drop_hold(item[1], item[2]) or dropped
end
if dropped then redis.call('PUBLISH', channel, '') end
