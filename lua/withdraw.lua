-- Deletes a pending session.
-- KEYS[1] to  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] pending value, without its end  ARGV[3] ID of to
-- Replies tag .. 'ok', or tag .. 'gone' when it is not there.
local value = redis.call('GET', KEYS[1])
if not value or not starts(value, ARGV[2]) then
  return ARGV[1] .. 'gone'
end
redis.call('DEL', KEYS[1])
if KEYS[2] then
  redis.call('ZREM', KEYS[2], '?' .. ARGV[3])
end
return ARGV[1] .. 'ok'
