-- Deletes sessions of a subject, the oldest first, but some and their successors.
-- KEYS[1] index
-- ARGV[1] tag  ARGV[2] most sessions to delete  ARGV[3] how many keys a chain of
-- rotations may have  ARGV[4] channel  ARGV[5...] IDs to spare
-- Replies tag .. the number deleted, and '+' behind it when there are more.
local spare, spared = {}, {}
for i = 5, #ARGV do
  local id = ARGV[i]
  for _ = 1, tonumber(ARGV[3]) do
    if not spare[id] then
      spare[id] = true
      spared[#spared + 1] = id
    end
    local value = redis.call('GET', key(KEYS[1], id))
    if kind(value) ~= 'pointer' then
      break
    end
    id = string.sub(value, 38, 73)
  end
end
-- One more than can be sessions to spare and sessions to delete.
local last = ARGV[2] + #spared
local deleted, more = {}, ''
for i, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, last)) do
  if i > last then
    more = '+'
  elseif not spare[member] then
    local n = redis.call('DEL', key(KEYS[1], member))
    redis.call('ZREM', KEYS[1], member)
    if n == 1 and not pending(member) then
      deleted[#deleted + 1] = member
    end
  end
end
publish(ARGV[4], KEYS[1], deleted, spared)
return ARGV[1] .. #deleted .. more
