-- Gives and takes back permits for calls to somebody else's limits: learned.py and MemoryLeases, as Redis runs them.
-- It stands in frame.lua.
--
-- KEYS    for each question one key, that of the owner's permits; nothing is kept there. All of an owner's records have
--         names that begin with it, so they have its hash tag and are in its slot:
--           :held                            a sorted set: permits under the global limit, until when they count
--           :stop                            until when the global limit, and everything, is stopped: "µs µs"
--           :hash:<route>                    the bucket that answers named: its digest, its former one's, its name
--           :lock:<route>:<resource>         until when a kind of call is stopped
--           :bucket:<bucket>:<resource>      Record.text(); until the bucket is known, the route stands in its place
-- reply   for each question what it is answered, an integer first
--
-- Names in keys are digests. All numbers are whole and below 2^53, so a double holds them exactly.

local max, min = math.max, math.min

local UNKNOWN, FIXED, SLIDING, HIDDEN = 0, 1, 2, 3
local ANSWER = -1
local EARLY, LATE, QUIET, KEPT = 1000, 1000, 10000000, 60000000
local SECOND = 1001000
local HASH_MS = 604800000
local GO, BANNED, STOPPED, ROUTE, BUCKET, ANSWERS, GLOBAL = 0, 1, 2, 3, 4, 5, 6

local function whole(number)
  return string.format('%.0f', number)
end

local function number(text) -- nil: somebody else has written it
  return text and #text < 18 and string.find(text, '^%-?%d+$') and tonumber(text) or nil
end

-- A bucket's record, as in learned.py

local FIELDS = {'limit', 'remaining', 'lo', 'hi', 'asof', 'stopped', 'probes', 'kind', 'slot', 'opened', 'passed'}

local function new_record()
  return {
    limit = 0, remaining = 0, lo = 0, hi = 0, asof = 0, stopped = 0, probes = 1, kind = UNKNOWN, slot = 0, opened = 0,
    passed = 0, flights = {}, out = 0
  }
end

local function record_of(text) -- nil also for what is no record
  local record, place, permit = {flights = {}, out = 0}, 0, nil
  for word in string.gmatch(text, '%S+') do
    place = place + 1
    local value = number(word)
    if place <= 11 then
      if not value then return end
      record[FIELDS[place]] = value
    elseif not permit then
      permit = word
    else
      if not value then return end
      record.flights[permit], record.out, permit = value, record.out + 1, nil
    end
  end
  if place >= 11 and not permit then return record end
end

local function text_of(record)
  local words, permits = {}, {}
  for i = 1, 11 do words[i] = whole(record[FIELDS[i]]) end
  for permit in pairs(record.flights) do permits[#permits + 1] = permit end
  table.sort(permits)
  for i = 1, #permits do words[11 + i] = permits[i] .. ' ' .. whole(record.flights[permits[i]]) end
  return table.concat(words, ' ')
end

local function over(record)
  local last = max(record.hi, record.stopped, record.asof)
  for _, until_us in pairs(record.flights) do last = max(last, until_us) end
  return last + KEPT
end

local function drop(record, permit)
  if record.flights[permit] then record.flights[permit], record.out = nil, record.out - 1 end
end

local function add(record, permit, until_us)
  if not record.flights[permit] then record.out = record.out + 1 end
  record.flights[permit] = until_us
end

local function count_one(record)
  if record.limit > 0 and now >= record.hi then
    record.remaining, record.hi = record.limit - 1, now + record.slot + LATE
    return
  end
  record.remaining = max(0, record.remaining - 1)
  if record.kind == SLIDING then record.hi = record.hi + record.slot end
end

local function give_up(record) -- whether there was anything to give up
  local late = {}
  for permit, until_us in pairs(record.flights) do
    if until_us <= now then late[#late + 1] = permit end
  end
  for i = 1, #late do
    drop(record, late[i])
    count_one(record)
  end
  return #late > 0
end

local function wait_for(record)
  local out = record.out
  if now < record.stopped then return record.stopped - now end
  if record.limit == 0 then return out < record.probes and 0 or ANSWER end
  if now >= record.hi then return out < record.limit and 0 or ANSWER end
  if out < record.remaining then return 0 end
  if record.kind == SLIDING then
    local due = record.hi + out * (record.slot + LATE) - (record.limit - 1) * (record.slot - EARLY)
    return max(0, due - now)
  end
  return record.remaining > 0 and ANSWER or record.hi - now
end

local function slide(record, answer, sent, lo, hi)
  if sent >= record.asof then
    record.remaining, record.lo, record.hi = answer.remaining, lo, hi
  else
    record.remaining = min(record.remaining, answer.remaining)
    record.lo, record.hi = max(record.lo, lo), max(record.hi, hi)
  end
end

local function narrow(record, answer, sent, lo, hi)
  local later = sent >= record.asof
  record.remaining = later and answer.remaining or min(record.remaining, answer.remaining)
  if record.kind == UNKNOWN and later and answer.remaining < answer.limit - 1 and hi < record.lo + record.slot then
    record.kind = FIXED
  end
  if record.kind == FIXED and now < record.hi then
    record.lo, record.hi = max(record.lo, lo), min(record.hi, hi)
  else
    record.hi = max(record.hi, hi)
  end
end

local function told(record, answer, sent)
  local lo, hi = sent + answer.reset - EARLY, now + answer.reset + LATE
  if record.kind == HIDDEN or record.limit ~= answer.limit then
    record.kind, record.slot, record.lo, record.hi = UNKNOWN, 0, 0, 0
  end
  record.limit = answer.limit
  if record.kind == UNKNOWN and answer.remaining == answer.limit - 1 then record.slot = answer.reset end
  if record.hi == 0 then
    record.remaining, record.lo, record.hi = answer.remaining, lo, hi
  elseif hi < record.lo then
    return
  elseif record.kind == SLIDING then
    slide(record, answer, sent, lo, hi)
  elseif record.kind == UNKNOWN and lo > record.hi and now < record.lo and record.slot ~= 0 then
    record.kind = SLIDING
    slide(record, answer, sent, lo, hi)
  elseif lo > record.hi then
    record.remaining, record.lo, record.hi = answer.remaining, lo, hi
  else
    narrow(record, answer, sent, lo, hi)
  end
  record.asof = now
end

local function silent(record, sent)
  record.passed, record.probes = record.passed + 1, record.probes + 1
  if record.limit == 0 then
    record.asof = now
    return
  end
  if record.kind == HIDDEN and sent < record.opened then record.limit = max(record.limit, record.passed) end
  count_one(record)
end

local function is_silent(record, answer)
  return record.slot == 0 and (record.probes > 1 or (answer.limit == 0 and record.limit == 0))
end

local function uncover(record, answer, finish)
  local let = max(1, record.passed)
  local limit = answer.limit ~= 0 and answer.limit or let
  record.limit = record.kind == HIDDEN and min(limit, let) or limit
  if answer.limit ~= 0 then record.passed = 0 end
  record.slot = record.opened ~= 0 and finish - record.opened or answer.retry + LATE
  local one = math.floor((answer.reset - answer.retry) / max(1, answer.limit - 1))
  if answer.limit > 1 and one > LATE then record.limit, record.slot = 1, one + LATE end
  record.kind, record.remaining, record.lo, record.hi, record.opened = HIDDEN, 0, finish, finish, finish
end

local function refused(record, answer, sent)
  local finish = now + answer.retry + LATE
  if record.kind == HIDDEN and sent < record.opened then
    if sent + answer.retry - EARLY > record.hi then record.remaining, record.lo, record.hi = 0, finish, finish end
  elseif record.kind == HIDDEN or is_silent(record, answer) then
    uncover(record, answer, finish)
  else
    record.kind, record.slot, record.remaining = UNKNOWN, 0, 1
    if answer.limit ~= 0 then record.limit = answer.limit end
    record.lo, record.hi = now, max(record.hi, finish, now + answer.reset + LATE)
  end
  record.stopped, record.probes, record.asof = max(record.stopped, finish), 1, now
end

local function learn(record, answer, sent)
  if answer.verdict == 'lost' then
    count_one(record)
  elseif answer.verdict == 'limited' then
    refused(record, answer, sent)
  elseif answer.verdict == 'answered' then
    if answer.limit ~= 0 then told(record, answer, sent) else silent(record, sent) end
  end
end

-- The records of one question: read once, and written when all has been read

local function open_book(base)
  local book, kept, changed = {}, {}, {}

  function book.found(place, major)
    local key = base .. ':bucket:' .. place .. ':' .. major
    if kept[key] == nil then
      local text = call('GET', key)
      local record = text and record_of(text)
      kept[key] = record and over(record) > now and record or false
    end
    return kept[key] or nil
  end

  function book.put(place, major, record)
    local key = base .. ':bucket:' .. place .. ':' .. major
    kept[key], changed[key] = record or false, true
  end

  function book.close()
    for key in pairs(changed) do
      local record = kept[key]
      if record then keep(key, text_of(record), over(record)) else call('DEL', key) end
    end
  end

  return book
end

local function stops(base) -- until when the global limit is stopped, and everything
  local text = call('GET', base .. ':stop')
  if not text then return 0, 0 end
  local stopped, banned = string.match(text, '^(%d+) (%d+)$')
  return number(stopped) or 0, number(banned) or 0
end

local function bucket_of(base, route) -- its digest, that of its former name, and what it is called; nil: not known
  local text = call('GET', base .. ':hash:' .. route)
  if text then return string.match(text, '^(%S+) (%S+) (.*)$') end
end

local function gathered(book, route, major, known, former) -- what is known under a former name, or none, moves
  local cold = book.found(route, major)
  if not known then return cold end
  local record = book.found(known, major)
  if not record then
    record = book.found(former, major)
    if record then
      book.put(former, major, nil)
      book.put(known, major, record)
    end
  end
  if cold then
    if record then
      for flight, until_us in pairs(cold.flights) do add(record, flight, until_us) end
    end
    record = record or cold
    book.put(route, major, nil)
    book.put(known, major, record)
  end
  return record
end

-- The verbs. lease: [verb, 1, permit, route, resource, per second, µs until it is given up for lost]

local function why_not(base, record, route, major, per_second)
  local stopped, banned = stops(base)
  if now < banned then return BANNED, banned - now end
  if now < stopped and per_second > 0 then return STOPPED, stopped - now end
  local locked = number(call('GET', base .. ':lock:' .. route .. ':' .. major)) or 0
  if now < locked then return ROUTE, locked - now end
  record.gave_up = give_up(record)
  local wait = wait_for(record)
  if wait ~= 0 then return wait == ANSWER and ANSWERS or BUCKET, wait end
  if per_second == 0 then return GO, 0 end
  local held = base .. ':held'
  call('ZREMRANGEBYSCORE', held, '-inf', whole(now))
  if call('ZCARD', held) < per_second then return GO, 0 end
  wait = tonumber(call('ZRANGE', held, 0, 0, 'WITHSCORES')[2]) - now
  return GLOBAL, wait > SECOND and ANSWER or wait
end

local function hold(base, permit, until_us)
  local key = base .. ':held'
  call('ZADD', key, whole(until_us), permit)
  local left_ms = math.ceil((until_us - now) / 1000) + slack
  if call('PTTL', key) < left_ms then call('PEXPIRE', key, left_ms) end
end

local function lease(question, base)
  local permit, route, major, per_second = question[3], question[4], question[5], question[6]
  local book = open_book(base)
  local digest, former, bucket = bucket_of(base, route)
  local record = gathered(book, route, major, digest, former)
  local is_kept = record
  record = record or new_record()
  local why, wait = why_not(base, record, route, major, per_second)
  if wait == 0 then
    local is_rested = record.limit == 0 and now > record.asof + QUIET
    if record.kind == HIDDEN then is_rested = now >= record.hi end
    if is_rested and record.out == 0 then record.opened, record.passed = now, 0 end
    add(record, permit, now + question[7])
    if per_second > 0 then hold(base, permit, now + question[7]) end
  end
  if wait == 0 or (is_kept and record.gave_up) then book.put(digest or route, major, record) end
  book.close()
  for _, value in ipairs({
    why, wait, bucket or '', record.limit, record.remaining, max(0, record.hi - now), record.kind, record.slot,
    record.out
  }) do say(value) end
end

-- settle: [verb, 1, permit, route, resource, per second, digest of the bucket it was given under ("": none), sent,
--          verdict, bucket, its digest, limit, remaining, µs until the reset, µs to wait]

local function settle(question, base)
  local permit, route, major, given, sent = question[3], question[4], question[5], question[7], question[8]
  local bucket, named = question[10], question[11]
  local answer = {
    verdict = question[9], limit = question[12], remaining = question[13], reset = question[14], retry = question[15]
  }
  local verdict, book = answer.verdict, open_book(base)
  local known, former = bucket_of(base, route)
  local tells = bucket ~= '' and (verdict == 'answered' or verdict == 'limited')
  local elsewhere = tells and verdict == 'limited' and known and known ~= named
  local is_named = tells and not elsewhere
  if is_named and known ~= named then known, former = named, known or '-' end
  local record = gathered(book, route, major, known, former) or new_record()
  book.put(known or route, major, record)
  local place = given ~= '' and given or route
  local given_by = book.found(place, major)
  if given_by and given_by ~= record then
    drop(given_by, permit)
    book.put(place, major, given_by)
  end
  drop(record, permit)
  if elsewhere then
    record = book.found(named, major) or new_record()
    book.put(named, major, record)
  end
  learn(record, answer, sent)

  local stopped, banned = stops(base)
  local lock = base .. ':lock:' .. route .. ':' .. major
  local locked = verdict == 'limited' or verdict == 'sublimited'
  locked = locked and max(number(call('GET', lock)) or 0, now + answer.retry + LATE)
  if question[6] > 0 then
    call('ZREM', base .. ':held', permit)
    if verdict ~= 'unsent' then hold(base, permit, now + SECOND) end
  end
  if verdict == 'banned' then banned = max(banned, now + answer.retry) end
  if verdict == 'stopped' then stopped = max(stopped, now + answer.retry) end
  if verdict == 'banned' or verdict == 'stopped' then
    keep(base .. ':stop', whole(stopped) .. ' ' .. whole(banned), max(stopped, banned))
  end
  if locked then keep(lock, whole(locked), locked) end
  if is_named then
    call('SET', base .. ':hash:' .. route, known .. ' ' .. former .. ' ' .. bucket, 'PX', HASH_MS + slack)
  end
  book.close()
  say(1)
end

function answer(question, place)
  if question[1] == 'lease' then lease(question, KEYS[place]) else settle(question, KEYS[place]) end
end
