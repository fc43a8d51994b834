-- Deletes a session. When it was rotated away the successor goes first, and when it was
-- renewed nothing goes.
-- KEYS[1] session  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] session ID  ARGV[3] channel
-- Replies tag, or tag .. pointer or mark.
local value = redis.call('GET', KEYS[1])
local is = kind(value)
if is == 'pointer' or is == 'mark' then
  return ARGV[1] .. value
end
redis.call('DEL', KEYS[1])
if KEYS[2] then
  redis.call('ZREM', KEYS[2], ARGV[2], '?' .. ARGV[2])
end
if is == 'record' then
  publish(ARGV[3], KEYS[2], { ARGV[2] })
end
return ARGV[1]
