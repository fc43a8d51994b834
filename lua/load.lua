-- Reads the record of an indexed session and restarts its lifetime.
-- KEYS[1] session  KEYS[2] its subject's index
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID
-- Replies tag .. value, tag alone without one. Only a record is prolonged.
local value = redis.call('GET', KEYS[1])
if not value then
  return ARGV[1]
end
if kind(value) ~= 'record' then
  return ARGV[1] .. value
end
if not redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  redis.call('DEL', KEYS[1])
  return ARGV[1]
end
prolong(KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return ARGV[1] .. value
