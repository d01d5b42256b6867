-- What was raised after a seq: follows `clock`.
-- ARGV[4..5]: the epoch and the seq asked with.
-- Returns the epoch, the seq (as text), 1 if the clock is new, and members and scores in turn, oldest first.
local since = '-inf'
if ARGV[4] == epoch then
  since = '(' .. ARGV[5]
end
return {epoch, text(seq), new, redis.call('ZRANGEBYSCORE', KEYS[1], since, '+inf', 'WITHSCORES')}
