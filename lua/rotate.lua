-- Makes a session lead to its successor. With an index it stores the successor
-- too; without one the successor may live in another slot and is there already.
-- KEYS[1] from  KEYS[2] index, or none  KEYS[3] to
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] ID of from  ARGV[4] old  ARGV[5] record
-- ARGV[6] pointer, without its end  ARGV[7] grace in ms, 0: none  ARGV[8] ID of to
-- ARGV[9] channel
-- Replies tag .. 'ok', 'conflict', 'renewed' or 'gone'.
local value = redis.call('GET', KEYS[1])
local is = kind(value)
if not value or is == 'pending' then
  return ARGV[1] .. 'gone'
end
if is == 'mark' then
  return ARGV[1] .. 'renewed'
end
-- The pointer is there: this very command ran before and its reply was lost.
if starts(value, ARGV[6]) then
  return ARGV[1] .. 'ok'
end
if not starts(value, ARGV[4]) then
  return ARGV[1] .. 'conflict'
end
if KEYS[2] then
  local created = redis.call('ZSCORE', KEYS[2], ARGV[3])
  if not created then
    redis.call('DEL', KEYS[1])
    return ARGV[1] .. 'gone'
  end
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[2])
  redis.call('ZADD', KEYS[2], created, ARGV[8])
  redis.call('ZREM', KEYS[2], ARGV[3])
  prolong(KEYS[2], ARGV[2])
end
if ARGV[7] == '0' then
  redis.call('DEL', KEYS[1])
else
  -- The pointer says itself when it ends: see pointer.lua.
  redis.call('SET', KEYS[1], ARGV[6] .. after(ARGV[7]), 'PX', ARGV[7])
end
publish(ARGV[9], KEYS[2], { ARGV[3] })
return ARGV[1] .. 'ok'
