-- Store each record unless a record of its epoch and a newer snap, or a tombstone of its epoch and a newer
-- seq, is there. KEYS: records. ARGV: value and milliseconds to live (0: for ever) of each.
-- Returns how many were not stored.
--
-- A value begins with its kind ('R' record, 'T' tombstone), epoch and snap, 8 bytes each, big-endian.
-- Numbers of 64 bits are compared in halves: Lua's have 53 bits, and its strings compare by locale.
local superseded = 0
for i, key in ipairs(KEYS) do
  local value, life = ARGV[2 * i - 1], ARGV[2 * i]
  local old = redis.call('GETRANGE', key, 0, 16)
  local newer = false
  if #old == 17 and string.sub(old, 2, 9) == string.sub(value, 2, 9) then
    local old_high, old_low = struct.unpack('>I4I4', string.sub(old, 10, 17))
    local high, low = struct.unpack('>I4I4', string.sub(value, 10, 17))
    newer = old_high > high or (old_high == high and old_low > low)
  end
  if newer then
    superseded = superseded + 1
  elseif life == '0' then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PX', life)
  end
end
return superseded
