-- Stores a new record, enters it in its subject's index and trims the index.
-- KEYS[1] session  KEYS[2] index
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID  ARGV[4] record  ARGV[5] limit, 0: none
-- ARGV[6] most sessions to look at when there are more than limit
-- Replies tag .. 'conflict', or tag .. 'ok' and behind a space each the IDs of the
-- sessions that gave way.
local taken = redis.call('GET', KEYS[1])
if taken and taken ~= ARGV[4] then
  return ARGV[1] .. 'conflict'
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[2])
local now = redis.call('TIME')
local score = now[1] * 1000000 + now[2]
-- A clock that went backwards must not make the new session the oldest.
local newest = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
if newest then
  score = math.max(score, newest + 1)
end
redis.call('ZADD', KEYS[2], 'NX', string.format('%.0f', score), ARGV[3])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end

local function key(id)
  return KEYS[2] .. ':' .. id
end

local reply = { ARGV[1] .. 'ok' }
local limit = tonumber(ARGV[5])
if limit == 0 then
  -- Entries of expired sessions go a few at a time, so that they stay few.
  for _, id in ipairs(redis.call('ZRANDMEMBER', KEYS[2], 8)) do
    if redis.call('EXISTS', key(id)) == 0 then
      redis.call('ZREM', KEYS[2], id)
    end
  end
  return reply[1]
end
local excess = redis.call('ZCARD', KEYS[2]) - limit
if excess <= 0 then
  return reply[1]
end
local live = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, ARGV[6] - 1)) do
  if excess > 0 and redis.call('EXISTS', key(id)) == 0 then
    redis.call('ZREM', KEYS[2], id)
    excess = excess - 1
  else
    live[#live + 1] = id
  end
end
for _, id in ipairs(live) do
  -- When a retry stores the session again, others may be newer: it stays.
  if excess > 0 and id ~= ARGV[3] then
    redis.call('DEL', key(id))
    redis.call('ZREM', KEYS[2], id)
    reply[#reply + 1] = id
    excess = excess - 1
  end
end
return table.concat(reply, ' ')
