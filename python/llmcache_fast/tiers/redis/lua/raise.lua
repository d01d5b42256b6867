-- Raise markers and rules, and tell: follows `clock`.
-- ARGV[4..10]: how many markers and how many rules to keep; the namespace's own target; the channel, and the
-- last field of the message (`tiers/messages.py`); how many targets and how many rules follow. Then those, and the
-- rules to forget.
-- Returns the epoch, the seq and the one before (as text) and 1 if the clock is new.
local most_markers, most_rules, namespace = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local rules_at = 11 + tonumber(ARGV[9])
local forgotten_at = rules_at + tonumber(ARGV[10])
local prev = seq
seq = math.max(seq + 1, now)
local score = text(seq)
redis.call('ZADD', KEYS[1], score, MARK .. epoch)
for i = 11, rules_at - 1 do
  redis.call('ZADD', KEYS[1], score, ARGV[i])
end

local before = tonumber(redis.call('ZSCORE', KEYS[1], 'rules') or 0)
local rules = before
for i = forgotten_at, #ARGV do
  rules = rules - redis.call('ZREM', KEYS[1], 'r' .. ARGV[i])
end
for i = rules_at, forgotten_at - 1 do
  rules = rules + redis.call('ZADD', KEYS[1], score, 'r' .. ARGV[i])
end

-- Too many: the older half goes, and the namespace's own marker stands for all of it (the floor).
local floor = 0
local count = redis.call('ZCARD', KEYS[1])
if count - rules > most_markers + 2 then
  local half = math.floor(count / 2)
  local old = redis.call('ZRANGE', KEYS[1], 0, half - 1, 'WITHSCORES')
  for i = 1, #old, 2 do
    if #old[i] > 16 then
      rules = rules - 1
    end
  end
  floor = tonumber(old[#old])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, half - 1)
  before = -1 -- the number of rules went with them
end
if rules > most_rules then
  local left = rules - math.floor(most_rules / 2)
  local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    if left > 0 and #all[i] > 16 then
      redis.call('ZREM', KEYS[1], all[i])
      floor = math.max(floor, tonumber(all[i + 1]))
      left, rules = left - 1, rules - 1
    end
  end
end
if floor > tonumber(redis.call('ZSCORE', KEYS[1], namespace) or 0) then
  redis.call('ZADD', KEYS[1], text(floor), namespace)
end
if rules ~= before then
  redis.call('ZADD', KEYS[1], rules, 'rules')
end

local function hex(bytes)
  return (string.gsub(bytes, '.', function(byte) return string.format('%02x', string.byte(byte)) end))
end
local words = {'1', hex(namespace), hex(epoch), text(prev), score, ARGV[8]}
redis.call('PUBLISH', ARGV[7], table.concat(words, ':'))
return {epoch, score, text(prev), new}
