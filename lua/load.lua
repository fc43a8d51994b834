-- Reads the record of an indexed session and restarts its lifetime.
-- KEYS[1] session  KEYS[2] its subject's index
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID
-- Replies tag .. record, tag .. pointer when rotated away, tag alone without a record.
local record = redis.call('GET', KEYS[1])
if not record then
  return ARGV[1]
end
if string.byte(record) == 0xC1 then
  return ARGV[1] .. record
end
if not redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  redis.call('DEL', KEYS[1])
  return ARGV[1]
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return ARGV[1] .. record
