-- Deletes every session of a subject but some and their successors.
-- KEYS[1] index
-- ARGV[1] tag  ARGV[2...] IDs to spare
-- Replies tag .. the number deleted.
local function key(id)
  return KEYS[1] .. ':' .. id
end

local spare = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  while id do
    spare[id] = true
    local record = redis.call('GET', key(id))
    -- A pointer is 0xC1, the ID of the rotated session and that of its successor.
    id = record and string.byte(record) == 0xC1 and string.sub(record, 38, 73)
  end
end
local deleted = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if not spare[id] then
    deleted = deleted + redis.call('DEL', key(id))
    redis.call('ZREM', KEYS[1], id)
  end
end
return ARGV[1] .. deleted
