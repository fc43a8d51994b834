-- Reads every live session of a subject, oldest first.
-- KEYS[1] index
-- ARGV[1] tag
-- Replies {tag, record, lifetime left in ms, record, lifetime left in ms, ...}.
local reply = { ARGV[1] }
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local key = KEYS[1] .. ':' .. id
  local record = redis.call('GET', key)
  if record then
    reply[#reply + 1] = record
    reply[#reply + 1] = redis.call('PTTL', key)
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return reply
