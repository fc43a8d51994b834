-- Reads a key that held a pointer, a mark or a pending session, and gives it back the
-- lifetime that a touch may have prolonged.
-- KEYS[1] session
-- ARGV[1] tag
-- Replies tag .. value, and of what is no record also ' ' .. what it has left in ms, with
-- zeros in front; tag alone when the key is absent or the value has ended.
local value = redis.call('GET', KEYS[1])
if not value then
  return ARGV[1]
end
if kind(value) == 'record' then
  return ARGV[1] .. value
end
local ends = string.match(value, '%d+', 74)
local now = redis.call('TIME')
local left = tonumber(ends) - now[1] * 1000 - now[2] / 1000
if left <= 0 then
  redis.call('DEL', KEYS[1])
  return ARGV[1]
end
redis.call('PEXPIREAT', KEYS[1], ends)
return ARGV[1] .. value .. ' ' .. string.format('%015.0f', math.max(1, math.floor(left)))
