-- Give up the leases that are the token's, and say so.
-- KEYS: leases. ARGV: token, channel, how many bytes of a key come before the fingerprint.
-- Returns how many there were.
local released = 0
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    redis.call('DEL', key)
    redis.call('PUBLISH', ARGV[2], string.sub(key, ARGV[3] + 1, ARGV[3] + 32))
    released = released + 1
  end
end
return released
