-- A namespace's clock: the beginning of `raise` and of `changes`.
--
-- KEYS[1]: a sorted set. One key, so that eviction or a restart loses all of it or nothing. Its members, by length:
--   5      'rules', with the number of rules
--   8      a target, with the seq it was last raised to
--   16     eight of 0xff and the epoch, with the last seq; the last member always: the highest score and name
--   18 on  'r' and a rule, with its seq
-- ARGV[1..3]: an epoch to use if a new one is needed; the epoch and the seq the caller knew.
local fresh, known, known_seq = ARGV[1], ARGV[2], tonumber(ARGV[3])
local MARK = string.rep('\255', 8)
local function text(seq) -- Lua's own way would cut it
  return string.format('%.0f', seq)
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local epoch, seq, new = nil, now, 0
if last[1] and #last[1] == 16 then
  epoch, seq = string.sub(last[1], 9), tonumber(last[2])
  -- Behind what was acknowledged: an older copy was restored, and the markers raised since are lost.
  if epoch == known and seq < known_seq then
    epoch, seq = nil, now
  end
end
if not epoch then
  epoch, new = fresh, 1
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], text(seq), MARK .. epoch)
end
