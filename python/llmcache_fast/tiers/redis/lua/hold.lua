-- Renew the leases that are still the token's and, if told so, take those that are free.
-- KEYS: leases. ARGV: token, milliseconds, 'take' or 'renew'. Returns 1 or 0 for each.
local held = {}
for i, key in ipairs(KEYS) do
  held[i] = 0
  if redis.call('GET', key) == ARGV[1] then
    held[i] = redis.call('PEXPIRE', key, ARGV[2])
  elseif ARGV[3] == 'take' and redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) then
    held[i] = 1
  end
end
return held
