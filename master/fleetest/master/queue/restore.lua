-- request: recovery, holds = {{id, token, uses}, ...}
if request.recovery ~= '' then
  if redis.call('HGET', key.resources, '~') ~= request.recovery then return 0 end
  redis.call('HDEL', key.resources, '~')
  redis.call('HSET', key.resources, '!', 1)
end
for _, item in ipairs(request.holds) do
  if redis.call('HEXISTS', key.holds, item[1]) == 0 then hold(unpack(item)) end
end
if request.recovery ~= '' then redis.call('PUBLISH', channel, '') end
return 1
