-- Reads a key that held a pointer, a mark or a pending session, and gives it back the
-- lifetime that a touch may have prolonged.
-- KEYS[1] session
-- ARGV[1] tag
-- Replies tag .. value, tag alone when the key is absent or the value has ended.
local value = redis.call('GET', KEYS[1])
if not value then
  return ARGV[1]
end
if kind(value) ~= 'record' then
  local ends = string.match(value, '%d+', 74)
  local now = redis.call('TIME')
  if tonumber(ends) <= now[1] * 1000 + now[2] / 1000 then
    redis.call('DEL', KEYS[1])
    return ARGV[1]
  end
  redis.call('PEXPIREAT', KEYS[1], ends)
end
return ARGV[1] .. value
