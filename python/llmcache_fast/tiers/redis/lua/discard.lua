-- Delete each record that still has its stamp. KEYS: records. ARGV: the stamp of each, epoch and snap.
-- Returns how many were deleted.
local deleted = 0
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, 0, 16) == 'R' .. ARGV[i] then
    deleted = deleted + redis.call('DEL', key)
  end
end
return deleted
