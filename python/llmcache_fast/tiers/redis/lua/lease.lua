-- Read records, and take the lease of each that is absent and that nobody computes.
-- KEYS: record and lease of each fingerprint in turn. ARGV: token, milliseconds.
-- Returns for each the value, or 1 if the lease is the token's now, else 0.
local answers = {}
for i = 1, #KEYS, 2 do
  local value = redis.call('GET', KEYS[i])
  if value and string.sub(value, 1, 1) == 'R' then
    answers[#answers + 1] = value
  elseif redis.call('SET', KEYS[i + 1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    answers[#answers + 1] = 1
  elseif redis.call('GET', KEYS[i + 1]) == ARGV[1] then
    redis.call('PEXPIRE', KEYS[i + 1], ARGV[2])
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
