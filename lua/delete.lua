-- Deletes a session, unless it was rotated away: then the successor goes first.
-- KEYS[1] session  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] session ID
-- Replies tag, or tag .. pointer when rotated away.
local record = redis.call('GET', KEYS[1])
if record and string.byte(record) == 0xC1 then
  return ARGV[1] .. record
end
redis.call('DEL', KEYS[1])
if KEYS[2] then
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return ARGV[1]
