-- Replaces a record that begins with the old one's leading bytes.
-- KEYS[1] session  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID  ARGV[4] old  ARGV[5] record
-- Replies tag .. 'ok', 'conflict', 'renewed' or 'gone'.
local value = redis.call('GET', KEYS[1])
local is = kind(value)
if not value or is == 'pending' then
  return ARGV[1] .. 'gone'
end
if is == 'mark' then
  return ARGV[1] .. 'renewed'
end
if KEYS[2] and is == 'record' and not redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  redis.call('DEL', KEYS[1])
  return ARGV[1] .. 'gone'
end
-- Equal to the new record: this very command ran before and its reply was lost.
if value ~= ARGV[5] and not starts(value, ARGV[4]) then
  return ARGV[1] .. 'conflict'
end
redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[2])
if KEYS[2] then
  prolong(KEYS[2], ARGV[2])
end
return ARGV[1] .. 'ok'
