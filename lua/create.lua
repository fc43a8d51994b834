-- Stores a new record, enters it in its subject's index and trims the index.
-- KEYS[1] session  KEYS[2] index
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID  ARGV[4] record  ARGV[5] limit, 0: none
-- Replies tag .. 'ok' or tag .. 'conflict'.
local taken = redis.call('GET', KEYS[1])
if taken and taken ~= ARGV[4] then
  return ARGV[1] .. 'conflict'
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[2])
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'NX', now[1] .. string.format('%06d', now[2]), ARGV[3])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end

local function key(id)
  return KEYS[2] .. ':' .. id
end

local limit = tonumber(ARGV[5])
if limit == 0 then
  -- Entries of expired sessions go a few at a time, so that they stay few.
  for _, id in ipairs(redis.call('ZRANDMEMBER', KEYS[2], 8)) do
    if redis.call('EXISTS', key(id)) == 0 then
      redis.call('ZREM', KEYS[2], id)
    end
  end
elseif redis.call('ZCARD', KEYS[2]) > limit then
  local live = {}
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if redis.call('EXISTS', key(id)) == 0 then
      redis.call('ZREM', KEYS[2], id)
    else
      live[#live + 1] = id
    end
  end
  local excess = #live - limit
  for _, id in ipairs(live) do
    if excess <= 0 then
      break
    end
    -- A clock that went backwards must not make the new session the oldest.
    if id ~= ARGV[3] then
      redis.call('DEL', key(id))
      redis.call('ZREM', KEYS[2], id)
      excess = excess - 1
    end
  end
end
return ARGV[1] .. 'ok'
