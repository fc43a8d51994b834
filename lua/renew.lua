-- Ends a session that goes on under another ID, and leaves a mark. With KEYS[3] it stores
-- the new session too; without it, that session is pending in another slot.
-- KEYS[1] from  KEYS[2] index of from, or none  KEYS[3] to, if of the same subject
-- ARGV[1] tag  ARGV[2] ID of from  ARGV[3] old  ARGV[4] mark, without its end
-- ARGV[5] lifetime of the mark in ms  ARGV[6] channel  ARGV[7] ID of to  ARGV[8] record
-- ARGV[9] lifetime in ms
-- Replies tag .. 'ok', 'conflict', 'renewed' or 'gone'.
local value = redis.call('GET', KEYS[1])
local is = kind(value)
if not value or is == 'pending' then
  return ARGV[1] .. 'gone'
end
if is == 'mark' then
  -- If it names to, this very command ran before and its reply was lost.
  return ARGV[1] .. (starts(value, ARGV[4]) and 'ok' or 'renewed')
end
if is == 'pointer' or not starts(value, ARGV[3]) then
  return ARGV[1] .. 'conflict'
end
local created = KEYS[2] and redis.call('ZSCORE', KEYS[2], ARGV[2])
if KEYS[2] and not created then
  redis.call('DEL', KEYS[1])
  return ARGV[1] .. 'gone'
end
if KEYS[3] then
  if redis.call('EXISTS', KEYS[3]) == 1 then
    return ARGV[1] .. 'conflict'
  end
  redis.call('SET', KEYS[3], ARGV[8], 'PX', ARGV[9])
  redis.call('ZADD', KEYS[2], created, ARGV[7])
  prolong(KEYS[2], ARGV[9])
end
redis.call('SET', KEYS[1], ARGV[4] .. after(ARGV[5]), 'PX', ARGV[5])
if KEYS[2] then
  redis.call('ZREM', KEYS[2], ARGV[2])
end
publish(ARGV[6], KEYS[2], { ARGV[2] })
return ARGV[1] .. 'ok'
