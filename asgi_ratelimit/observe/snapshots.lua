-- Keeps one snapshot for each process, and returns those of the others. It stands in frame.lua.
--
-- KEYS     for each question one key, at which nothing is stored. The records' names are it and ':1', ':2' and so on.
-- question ["share", 1, number of places, owner, snapshot, µs that it is kept], or ["read", 1, number of places]
-- reply    how many others there are, and for each of them the µs since it was written, and its snapshot
--
-- A record is the time in µs at which it was written, its owner, and the snapshot. An owner without a place takes a free
-- one, or that of the record which is the oldest.

local function read(key)
  local text = redis.pcall('GET', key)
  if type(text) ~= 'string' then return text and 0 end -- of another type: other software wrote it
  local written, owner, snapshot = string.match(text, '^(%d+) (%S+) (.*)$')
  return tonumber(written) or 0, owner, snapshot
end

function answer(question, place)
  local owner, found = question[4], {}
  local target, oldest
  for i = 1, question[3] do
    local key = KEYS[place] .. ':' .. i
    local written, its_owner, snapshot = read(key)
    if owner and its_owner == owner then
      target, oldest = key, -1
    else
      if owner and (written or -1) < (oldest or math.huge) then target, oldest = key, written or -1 end
      if snapshot then found[#found + 1] = {key, now - written, snapshot} end
    end
  end
  if owner then keep(target, digits(now) .. ' ' .. owner .. ' ' .. question[5], now + question[6]) end
  say(#found)
  for _, record in ipairs(found) do
    say(math.max(0, record[2]))
    say(record[3])
  end
end
