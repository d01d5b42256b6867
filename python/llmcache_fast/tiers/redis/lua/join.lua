-- Add members to a partition, in the order given; one that is there arrives again.
-- KEYS[1]: a sorted set of fingerprints, each with when it arrived. ARGV: milliseconds to live (0: for ever), how many
-- members to keep, then the members.
-- Arrivals are microseconds of the server's clock, and later than the last. The set lives as long as its longest
-- lived member.
local life, most = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local arrival = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then
  arrival = math.max(arrival, tonumber(last[2]))
end
local left = redis.call('PTTL', KEYS[1]) -- -1: for ever; -2: there is none
for i = 3, #ARGV do
  arrival = arrival + 1
  redis.call('ZADD', KEYS[1], string.format('%.0f', arrival), ARGV[i])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -most - 1)
if life == '0' then
  redis.call('PERSIST', KEYS[1])
elseif left ~= -1 and left < tonumber(life) then
  redis.call('PEXPIRE', KEYS[1], life)
end
return #ARGV - 2
