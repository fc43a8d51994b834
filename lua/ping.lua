-- Tries the commands of the other scripts on keys that do not exist, and changes nothing.
-- KEYS[1] session  KEYS[2] its subject's index, or none
-- ARGV[1] tag  ARGV[2...] keys of all slots, if this server must have all slots
-- Replies {tag, name of a command that failed, 'permission', 'unknown', 'cluster' or
-- 'other', ...}.
local reply = { ARGV[1] }

local function try(name, ...)
  local answer = redis.pcall(name, ...)
  if type(answer) == 'table' and answer.err then
    local why = 'other'
    -- Each version says it in words of its own.
    if string.find(answer.err, 'NOPERM') or string.find(answer.err, 'user executing') or string.find(answer.err, 'ACL') then
      why = 'permission'
    elseif string.find(answer.err, 'Unknown') then
      why = 'unknown'
    elseif string.find(answer.err, 'non local') then
      why = 'cluster'
    end
    reply[#reply + 1] = name
    reply[#reply + 1] = why
  end
end

try('GET', KEYS[1])
try('GETRANGE', KEYS[1], 0, 0)
try('SET', KEYS[1], '', 'PX', 1000, 'XX')
try('DEL', KEYS[1])
try('TIME')
try('PTTL', KEYS[1])
try('PEXPIREAT', KEYS[1], 1)
if KEYS[2] then
  try('EXISTS', KEYS[1])
  try('PEXPIRE', KEYS[1], 1000)
  try('ZADD', KEYS[2], 'XX', 0, '')
  try('ZREM', KEYS[2], '')
  try('ZSCORE', KEYS[2], '')
  try('ZCARD', KEYS[2])
  try('ZRANGE', KEYS[2], '+inf', '-inf', 'BYSCORE', 'REV')
  try('ZRANDMEMBER', KEYS[2], 1)
end
for i = 2, #ARGV do
  try('GET', ARGV[i])
end
return reply
