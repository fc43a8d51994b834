-- Makes a session of a pending one, the newest of its subject, and trims the index.
-- KEYS[1] to  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2] lifetime in ms  ARGV[3] ID of to  ARGV[4] record  ARGV[5] limit, 0: none
-- ARGV[6] most sessions to look at when there are more than limit  ARGV[7] channel
-- Replies tag .. 'gone', or tag .. 'ok' and behind a space each the IDs of the sessions that
-- gave way.
local is = kind(redis.call('GET', KEYS[1]))
if not is then
  return ARGV[1] .. 'gone'
end
-- Only this script makes something else of it: it ran before and its reply was lost.
if is ~= 'pending' then
  return ARGV[1] .. 'ok'
end
if KEYS[2] and redis.call('ZREM', KEYS[2], '?' .. ARGV[3]) == 0 then
  redis.call('DEL', KEYS[1])
  return ARGV[1] .. 'gone'
end
-- The old session has ended already. After a DEL in the same script a full Redis does not
-- refuse the SET.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[2])
if not KEYS[2] then
  return ARGV[1] .. 'ok'
end
enter(KEYS[2], ARGV[3], ARGV[2])
local reply = trim(KEYS[2], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[3])
publish(ARGV[7], KEYS[2], reply, { ARGV[3] })
table.insert(reply, 1, ARGV[1] .. 'ok')
return table.concat(reply, ' ')
