-- Counts a page of a subject's live sessions, newest first, as list.lua reads them.
-- KEYS[1] index
-- ARGV[1] tag  ARGV[2] upper end of the scores: '+inf', or what the last page replied
-- ARGV[3] most sessions
-- Replies {tag, upper end for the next page or '', number}.
local sessions = redis.call('ZRANGE', KEYS[1], ARGV[2], '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
local live = 0
for i = 1, #sessions, 2 do
  if redis.call('EXISTS', key(KEYS[1], sessions[i])) == 0 then
    redis.call('ZREM', KEYS[1], sessions[i])
  elseif not pending(sessions[i]) then
    live = live + 1
  end
end
local more = #sessions == 2 * ARGV[3] and '(' .. sessions[#sessions] or ''
return { ARGV[1], more, live }
