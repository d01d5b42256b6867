-- Take members out of a partition whose records were found gone, unless they have arrived again since.
-- KEYS[1]: the set. ARGV: member and arrival of each. Returns how many were taken out.
local left = 0
for i = 1, #ARGV, 2 do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or -1) == tonumber(ARGV[i + 1]) then
    left = left + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return left
