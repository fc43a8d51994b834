-- Stores a pending session, which nobody can find, for complete.lua to make a session of.
-- KEYS[1] to  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] pending value, without its end  ARGV[3] its lifetime in ms
-- ARGV[4] ID of to  ARGV[5] limit beyond which to refuse, 0: none
-- ARGV[6] most expired sessions to remove
-- Replies tag .. 'ok', 'conflict', 'full' or 'again'.
local value = redis.call('GET', KEYS[1])
if value then
  -- If it is the same, this very command ran before and its reply was lost.
  return ARGV[1] .. (starts(value, ARGV[2]) and 'ok' or 'conflict')
end
local limit = tonumber(ARGV[5])
if KEYS[2] and limit > 0 then
  local answer = room(KEYS[2], limit, tonumber(ARGV[6]))
  if answer ~= 'ok' then
    return ARGV[1] .. answer
  end
end
redis.call('SET', KEYS[1], ARGV[2] .. after(ARGV[3]), 'PX', ARGV[3])
if KEYS[2] then
  enter(KEYS[2], '?' .. ARGV[4], ARGV[3])
end
return ARGV[1] .. 'ok'
