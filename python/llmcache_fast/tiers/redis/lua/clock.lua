-- Read a namespace's clock, and raise markers.
--
-- KEYS[1]: a sorted set. Its members are targets of 8 bytes with the seq they were last raised to, and one of
-- 16 bytes, eight of 0xff and the epoch, with the last seq. One key, so that eviction or a restart loses all of it
-- or nothing; and that member is always the last one, for its score is the highest and so is its name.
-- ARGV: an epoch to use if a new one is needed; the epoch and the seq the caller knew; how many markers to
-- keep; the namespace's own target; then the targets to raise, or none.
-- Returns the epoch, the seq (as text: Lua's numbers would be cut) and 1 if the clock is new.
local fresh, known, known_seq, limit, namespace = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local MARK = string.rep('\255', 8)
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
end
if #ARGV > 5 then
  seq = math.max(seq + 1, now)
end
local score = string.format('%.0f', seq)
if new == 1 or #ARGV > 5 then
  redis.call('ZADD', KEYS[1], score, MARK .. epoch)
end
for i = 6, #ARGV do
  redis.call('ZADD', KEYS[1], score, ARGV[i])
end
-- Too many: the older half goes, and the namespace's own marker stands for all of it (the floor).
local count = redis.call('ZCARD', KEYS[1])
if count > limit + 1 then
  local half = math.floor(count / 2)
  local floor = redis.call('ZRANGE', KEYS[1], half - 1, half - 1, 'WITHSCORES')[2]
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, half - 1)
  local own = redis.call('ZSCORE', KEYS[1], namespace)
  if not own or tonumber(own) < tonumber(floor) then
    redis.call('ZADD', KEYS[1], string.format('%.0f', tonumber(floor)), namespace)
  end
end
return {epoch, score, new}
