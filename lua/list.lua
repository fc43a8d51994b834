-- Reads a page of a subject's live sessions, newest first. A session that is rotated
-- between two pages keeps its score: it is read once, before or after.
-- KEYS[1] index
-- ARGV[1] tag  ARGV[2] upper end of the scores: '+inf', or what the last page replied
-- ARGV[3] most sessions  ARGV[4] bytes of records after which the page ends
-- Replies {tag, upper end for the next page or '', record, lifetime left in ms, ...}.
local reply = { ARGV[1], '' }
local sessions = redis.call('ZRANGE', KEYS[1], ARGV[2], '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
local bytes = 0
for i = 1, #sessions, 2 do
  local session = key(KEYS[1], sessions[i])
  local value = redis.call('GET', session)
  if not value then
    redis.call('ZREM', KEYS[1], sessions[i])
  elseif kind(value) == 'record' then
    reply[#reply + 1] = value
    reply[#reply + 1] = redis.call('PTTL', session)
    bytes = bytes + #value
  end
  if bytes >= tonumber(ARGV[4]) or i == 2 * ARGV[3] - 1 then
    reply[2] = '(' .. sessions[i + 1]
    break
  end
end
return reply
