-- request: claims = {{id, worker}, ...}
for _, item in ipairs(request.claims) do
  if claim_of(item[1], item[2]) then forget(item[1]) end
end
