-- Stores a new record, enters it in its subject's index and trims the index.
-- KEYS[1] session  KEYS[2] index
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] session ID  ARGV[4] record  ARGV[5] limit, 0: none
-- ARGV[6] most sessions to look at when there are more than limit  ARGV[7] '1': refuse
-- beyond the limit  ARGV[8] channel
-- Replies tag .. 'conflict', 'full' or 'again', or tag .. 'ok' and behind a space each the
-- IDs of the sessions that gave way.
local taken = redis.call('GET', KEYS[1])
if taken and taken ~= ARGV[4] then
  return ARGV[1] .. 'conflict'
end
local limit, most = tonumber(ARGV[5]), tonumber(ARGV[6])
if ARGV[7] == '1' then
  local answer = taken and 'ok' or room(KEYS[2], limit, most)
  if answer ~= 'ok' then
    return ARGV[1] .. answer
  end
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[2])
enter(KEYS[2], ARGV[3], ARGV[2])
if ARGV[7] == '1' then
  return ARGV[1] .. 'ok'
end
local reply = trim(KEYS[2], limit, most, ARGV[3])
publish(ARGV[8], KEYS[2], reply, { ARGV[3] })
table.insert(reply, 1, ARGV[1] .. 'ok')
return table.concat(reply, ' ')
