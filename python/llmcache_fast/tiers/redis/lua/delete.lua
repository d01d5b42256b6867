-- Delete records. KEYS: records. ARGV: a tombstone and its milliseconds to live, or nothing.
-- Returns how many records there were; a tombstone is none.
local deleted = 0
local tombstone, life = ARGV[1], ARGV[2]
for _, key in ipairs(KEYS) do
  local kind = redis.call('GETRANGE', key, 0, 0)
  if kind == 'R' then
    deleted = deleted + 1
  end
  if tombstone then
    redis.call('SET', key, tombstone, 'PX', life)
  elseif kind ~= 'T' then
    redis.call('DEL', key)
  end
end
return deleted
