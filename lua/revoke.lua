-- Deletes sessions of a subject, the oldest first, but some and their successors.
-- KEYS[1] index
-- ARGV[1] tag  ARGV[2] most sessions to delete  ARGV[3] how many keys a chain of
-- rotations may have  ARGV[4...] IDs to spare
-- Replies tag .. the number deleted, and '+' behind it when there are more.
local function key(id)
  return KEYS[1] .. ':' .. id
end

local spare, spared = {}, 0
for i = 4, #ARGV do
  local id = ARGV[i]
  for _ = 1, tonumber(ARGV[3]) do
    if not spare[id] then
      spare[id] = true
      spared = spared + 1
    end
    local record = redis.call('GET', key(id))
    if not record or string.byte(record) ~= 0xC1 then
      break
    end
    -- A pointer is 0xC1, the ID of the rotated session and that of its successor.
    id = string.sub(record, 38, 73)
  end
end
-- One more than can be sessions to spare and sessions to delete.
local last = ARGV[2] + spared
local deleted, more = 0, ''
for i, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, last)) do
  if i > last then
    more = '+'
  elseif not spare[id] then
    deleted = deleted + redis.call('DEL', key(id))
    redis.call('ZREM', KEYS[1], id)
  end
end
return ARGV[1] .. deleted .. more
