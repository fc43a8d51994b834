-- Replaces a record that begins with the old one's leading bytes.
-- KEYS[1] session  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID  ARGV[4] old  ARGV[5] record
-- Replies tag .. 'ok', 'conflict' or 'gone'.
local record = redis.call('GET', KEYS[1])
if not record then
  return ARGV[1] .. 'gone'
end
if KEYS[2] and string.byte(record) ~= 0xC1 and not redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  redis.call('DEL', KEYS[1])
  return ARGV[1] .. 'gone'
end
-- Equal to the new record: this very command ran before and its reply was lost.
if record ~= ARGV[5] and string.sub(record, 1, #ARGV[4]) ~= ARGV[4] then
  return ARGV[1] .. 'conflict'
end
redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[2])
if KEYS[2] and redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return ARGV[1] .. 'ok'
