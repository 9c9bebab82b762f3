-- request: claims = {{run, id, worker, token}, ...}. Answers the numbers of those that are held by their attempts from now on;
-- of an attempt with the token 0, which did not begin, the hold is given back.
local kept, given_back = {}, false
for number, item in ipairs(request.claims) do
  local run, id, worker, token = unpack(item)
  local held = claim_of(id, worker) and held_by(id)
  if held then
    forget(run, {id})
    if token == 0 then
      given_back = true
      drop_hold(id, 0)
    else
      redis.call('HSET', key.holds, id, cmsgpack.pack({token, held[2], held[3]}))
      table.insert(kept, number)
    end
  end
end
if given_back then redis.call('PUBLISH', channel, '') end
return kept
