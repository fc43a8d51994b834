-- What the scripts share: this stands in front of each of them.

-- A value that is no record begins with 0xC1, the ID that the key belongs to, and a second
-- ID. Behind them comes what tells the kinds apart, and when the value ends, in
-- milliseconds since 1970:
--   pointer  ''   the session was rotated, and goes on under the second ID
--   mark     '!'  the session was renewed under the second ID: nothing leads there
--   pending  '?'  the renewal of the second ID is under way: there is no session yet
-- kind returns nil for a key that is absent. The first 100 bytes of a value are enough.
local function kind(value)
  if not value then
    return nil
  end
  if string.byte(value) ~= 0xC1 then
    return 'record'
  end
  local sign = string.sub(value, 74, 74)
  return sign == '!' and 'mark' or sign == '?' and 'pending' or 'pointer'
end

local function starts(value, with)
  return string.sub(value, 1, #with) == with
end

-- Publishes that the sessions of ids have ended. A message is a sign, the hash in the name of
-- the subject's index if there is one, ':' and IDs of 36 characters each. After '-' they are
-- those of sessions that ended. After '*' any session of the subject may have ended but
-- these: where many end, that is shorter. A user without the right to publish ends sessions
-- all the same, hence pcall.
local function publish(channel, index, ids, spared)
  if #ids == 0 then
    return
  end
  local sign, listed = '-', ids
  if #ids > 100 then
    sign, listed = '*', #spared > 100 and {} or spared
  end
  local hash = index and string.sub(index, -23, -2) or ''
  redis.pcall('PUBLISH', channel, sign .. hash .. ':' .. table.concat(listed))
end

-- Returns the time in ms from now, for the end of a value.
local function after(ms)
  local now = redis.call('TIME')
  return string.format('%.0f', now[1] * 1000 + now[2] / 1000 + ms)
end

-- The members of an index are IDs. Where the session is pending, '?' stands in front.
local function pending(member)
  return string.byte(member) == 63
end

-- Returns the key of a member's session.
local function key(index, member)
  return index .. ':' .. (pending(member) and string.sub(member, 2) or member)
end

-- An index lives as long as the sessions in it.
local function prolong(index, ms)
  if redis.call('PTTL', index) < tonumber(ms) then
    redis.call('PEXPIRE', index, ms)
  end
end

-- Enters a new member as the newest.
local function enter(index, member, ms)
  local now = redis.call('TIME')
  local score = now[1] * 1000000 + now[2]
  -- A clock that went backwards must not make the new session the oldest.
  local newest = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
  if newest then
    score = math.max(score, newest + 1)
  end
  redis.call('ZADD', index, 'NX', string.format('%.0f', score), member)
  prolong(index, ms)
end

-- Says whether there is room for one more session: 'ok' or 'full', or 'again' after most
-- and more entries of expired sessions were removed and others are left. A pending
-- session takes the room that it will need.
local function room(index, limit, most)
  local left = redis.call('ZCARD', index)
  if left < limit then
    return 'ok'
  end
  local live = 0
  for _, member in ipairs(redis.call('ZRANGE', index, 0, limit + most)) do
    if redis.call('EXISTS', key(index, member)) == 0 then
      redis.call('ZREM', index, member)
      left = left - 1
      if left < limit then
        return 'ok'
      end
    else
      live = live + 1
      if live == limit then
        return 'full'
      end
    end
  end
  return 'again'
end

-- Ends the oldest sessions beyond limit, but not that of own. It looks at most at the
-- number given, and returns the IDs that gave way. Without a limit it only removes a few
-- entries of expired sessions, so that they stay few.
local function trim(index, limit, most, own)
  if limit == 0 then
    for _, member in ipairs(redis.call('ZRANDMEMBER', index, 8)) do
      if redis.call('EXISTS', key(index, member)) == 0 then
        redis.call('ZREM', index, member)
      end
    end
    return {}
  end
  local live, gone = {}, {}
  local excess = redis.call('ZCARD', index) - limit
  if excess <= 0 then
    return gone
  end
  for _, member in ipairs(redis.call('ZRANGE', index, 0, most - 1)) do
    if excess > 0 and redis.call('EXISTS', key(index, member)) == 0 then
      redis.call('ZREM', index, member)
      excess = excess - 1
    elseif pending(member) then
      excess = excess - 1 -- others give way to it once it is a session
    else
      live[#live + 1] = member
    end
  end
  for _, id in ipairs(live) do
    -- When a retry stores the session again, others may be newer: it stays.
    if excess > 0 and id ~= own then
      redis.call('DEL', key(index, id))
      redis.call('ZREM', index, id)
      gone[#gone + 1] = id
      excess = excess - 1
    end
  end
  return gone
end
