-- Tells the lifetime that a session has left, and changes nothing.
-- KEYS[1] session  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] session ID
-- Replies tag .. lifetime in ms, tag .. value when the value is no record, tag alone
-- without a session.
local value = redis.call('GETRANGE', KEYS[1], 0, 99)
if value == '' then
  return ARGV[1]
end
if kind(value) ~= 'record' then
  return ARGV[1] .. value
end
if KEYS[2] and not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return ARGV[1]
end
return ARGV[1] .. redis.call('PTTL', KEYS[1])
