-- Gives permits for calls to Discord and takes them back: bucket.py and MemoryPermits, as Redis runs them.
-- It stands in frame.lua.
--
-- KEYS    for each question one key, that of the owner's permits; nothing is stored there. All of an owner's records have
--         names that begin with it, so they have its hash tag and are in its slot:
--           :held                            a sorted set: permits under the global limit, until when they count
--           :stop                            until when the global limit, and everything, is stopped: "µs µs"
--           :exempt                          until when calls are stopped that the global limit does not count
--           :hash:<route>                    the bucket that responses reported: its digest, its former one's, its name
--           :lock:<route>:<resource>         until when a kind of call is stopped
--           :bucket:<bucket>:<resource>      LearnedBucket.as_text(); a route before it has a bucket
-- reply   for each question its answer, an integer first, which is 16 more if a record was not believed
--
-- Names in keys are digests. All numbers are whole and below 2^53, so a double holds them exactly.

local max, min = math.max, math.min

local UNKNOWN, FIXED, SLIDING, HIDDEN = 0, 1, 2, 3
local AWAIT_RESPONSE = -1
local EARLY, LATE, SECOND, IDLE, RETENTION = 1000, 1000, 1001000, 10000000, 60000000
local WEEK = 604800000000 -- no limit of Discord's lasts longer
local GO, BANNED, STOPPED, ROUTE, BUCKET, ANSWERS, GLOBAL = 0, 1, 2, 3, 4, 5, 6

local function run(command, key, ...) -- drops a record of a wrong type first, since other software wrote it
  local result = redis.pcall(command, key, ...)
  if type(result) ~= 'table' or not result.err then return result end
  if not string.find(result.err, 'WRONGTYPE', 1, true) then error(result) end
  doubt = true
  call('DEL', key)
  return call(command, key, ...)
end

local function whole(number) return string.format('%.0f', number) end

local function number(text)
  local is_number = text and #text < 17 and string.find(text, '^%-?%d+$')
  doubt = doubt or (text and not is_number)
  return is_number and tonumber(text) or nil
end

local function moment(text) -- 0 if there is none, or if it is not believed
  local us = number(text) or 0
  doubt = doubt or us > now + WEEK
  return us > now + WEEK and 0 or us
end

-- A bucket's record, as in bucket.py

local FIELDS = {
  'limit', 'remaining', 'reset_min', 'reset_max', 'updated_at', 'stopped', 'probes', 'kind', 'slot', 'opened', 'passed'
}

local function new_record()
  return {
    limit = 0, remaining = 0, reset_min = 0, reset_max = 0, updated_at = 0, stopped = 0, probes = 1, kind = UNKNOWN,
    slot = 0, opened = 0, passed = 0, in_flight = {}, calls = 0
  }
end

local function is_plausible(record)
  local last = max(record.reset_min, record.reset_max, record.updated_at, record.stopped, record.opened)
  local least = min(record.limit, record.remaining, record.slot, record.passed)
  return last <= now + WEEK and record.slot <= WEEK and least >= 0 and record.probes > 0
end

local function record_of(text) -- nil if it is no record
  local record, place, permit = {in_flight = {}, calls = 0}, 0, nil
  for word in string.gmatch(text, '%S+') do
    place = place + 1
    local is_name = place > 11 and not permit
    local value = not is_name and number(word)
    if not is_name and not value then return end
    if place <= 11 then
      record[FIELDS[place]] = value
    elseif is_name then
      permit = word
    else
      if record.in_flight[permit] or value > now + RETENTION then return end
      record.in_flight[permit], record.calls, permit = value, record.calls + 1, nil
    end
  end
  if place >= 11 and not permit and is_plausible(record) then return record end
end

local function text_of(record)
  local words, permits = {}, {}
  for i = 1, 11 do words[i] = whole(record[FIELDS[i]]) end
  for permit in pairs(record.in_flight) do permits[#permits + 1] = permit end
  table.sort(permits)
  for i = 1, #permits do words[11 + i] = permits[i] .. ' ' .. whole(record.in_flight[permits[i]]) end
  return table.concat(words, ' ')
end

local function expires_at(record)
  local last = max(record.reset_max, record.stopped, record.updated_at)
  for _, until_us in pairs(record.in_flight) do last = max(last, until_us) end
  return last + RETENTION
end

local function drop(record, permit)
  if record.in_flight[permit] then record.in_flight[permit], record.calls = nil, record.calls - 1 end
end

local function add(record, permit, until_us)
  if not record.in_flight[permit] then record.calls = record.calls + 1 end
  record.in_flight[permit] = until_us
end

local function count_one(record)
  if record.limit > 0 and now >= record.reset_max then
    record.remaining, record.reset_max = record.limit - 1, now + record.slot + LATE
    return
  end
  record.remaining = max(0, record.remaining - 1)
  if record.kind == SLIDING then record.reset_max = record.reset_max + record.slot end
end

local function expire(record) -- whether any permit had expired
  local late = {}
  for permit, until_us in pairs(record.in_flight) do
    if until_us <= now then late[#late + 1] = permit end
  end
  for i = 1, #late do
    drop(record, late[i])
    count_one(record)
  end
  return #late > 0
end

local function wait_for(record)
  local out = record.calls
  if now < record.stopped then return record.stopped - now end
  if record.limit == 0 then return out < record.probes and 0 or AWAIT_RESPONSE end
  if now >= record.reset_max then return out < record.limit and 0 or AWAIT_RESPONSE end
  if out < record.remaining then return 0 end
  if record.kind == SLIDING then
    local due = record.reset_max + out * (record.slot + LATE) - (record.limit - 1) * (record.slot - EARLY)
    return max(0, due - now)
  end
  return record.remaining > 0 and AWAIT_RESPONSE or record.reset_max - now
end

local function slide(record, report, sent, lo, hi)
  if sent >= record.updated_at then
    record.remaining, record.reset_min, record.reset_max = report.remaining, lo, hi
  else
    record.remaining = min(record.remaining, report.remaining)
    record.reset_min, record.reset_max = max(record.reset_min, lo), max(record.reset_max, hi)
  end
end

local function narrow(record, report, sent, lo, hi)
  local later = sent >= record.updated_at
  record.remaining = later and report.remaining or min(record.remaining, report.remaining)
  if record.kind == UNKNOWN and later and report.remaining < report.limit - 1 and hi < record.reset_min + record.slot then
    record.kind = FIXED
  end
  if record.kind == FIXED and now < record.reset_max then
    record.reset_min, record.reset_max = max(record.reset_min, lo), min(record.reset_max, hi)
  else
    record.reset_max = max(record.reset_max, hi)
  end
end

local function on_limit(record, report, sent)
  local lo, hi = sent + report.reset - EARLY, now + report.reset + LATE
  if record.kind == HIDDEN or record.limit ~= report.limit then
    record.kind, record.slot, record.reset_min, record.reset_max = UNKNOWN, 0, 0, 0
  end
  record.limit = report.limit
  if record.kind == UNKNOWN and report.remaining == report.limit - 1 then record.slot = report.reset end
  if record.reset_max == 0 then
    record.remaining, record.reset_min, record.reset_max = report.remaining, lo, hi
  elseif hi < record.reset_min then
    return
  elseif record.kind == SLIDING then
    slide(record, report, sent, lo, hi)
  elseif record.kind == UNKNOWN and lo > record.reset_max and now < record.reset_min and record.slot ~= 0 then
    record.kind = SLIDING
    slide(record, report, sent, lo, hi)
  elseif lo > record.reset_max then
    record.remaining, record.reset_min, record.reset_max = report.remaining, lo, hi
  else
    narrow(record, report, sent, lo, hi)
  end
  record.updated_at = now
end

local function on_silence(record, sent)
  record.passed, record.probes = record.passed + 1, record.probes + 1
  if record.limit == 0 then
    record.updated_at = now
    return
  end
  if record.kind == HIDDEN and sent < record.opened then record.limit = max(record.limit, record.passed) end
  count_one(record)
end

local function is_silent(record, report)
  return record.slot == 0 and (record.probes > 1 or (report.limit == 0 and record.limit == 0))
end

local function uncover(record, report, finish)
  local passed = max(1, record.passed)
  local limit = report.limit ~= 0 and report.limit or passed
  record.limit = record.kind == HIDDEN and min(limit, passed) or limit
  if report.limit ~= 0 then record.passed = 0 end
  record.slot = record.opened ~= 0 and finish - record.opened or report.retry + LATE
  local one = math.floor((report.reset - report.retry) / max(1, report.limit - 1))
  if report.limit > 1 and one > LATE then record.limit, record.slot = 1, one + LATE end
  record.kind, record.remaining, record.reset_min, record.reset_max, record.opened = HIDDEN, 0, finish, finish, finish
end

local function on_refusal(record, report, sent)
  local finish = now + report.retry + LATE
  if record.kind == HIDDEN and sent < record.opened then
    if sent + report.retry - EARLY > record.reset_max then
      record.remaining, record.reset_min, record.reset_max = 0, finish, finish
    end
  elseif record.kind == HIDDEN or is_silent(record, report) then
    uncover(record, report, finish)
  else
    record.kind, record.slot, record.remaining = UNKNOWN, 0, 1
    if report.limit ~= 0 then record.limit = report.limit end
    record.reset_min, record.reset_max = now, max(record.reset_max, finish, now + report.reset + LATE)
  end
  record.stopped, record.probes, record.updated_at = max(record.stopped, finish), 1, now
end

local function learn(record, report, sent)
  if report.verdict == 'lost' then
    count_one(record)
  elseif report.verdict == 'limited' then
    on_refusal(record, report, sent)
  elseif report.verdict == 'answered' then
    if report.limit ~= 0 then on_limit(record, report, sent) else on_silence(record, sent) end
  end
end

-- The records of one question: read once, and written at the end

local function open_book(base)
  local book, cached, changed = {}, {}, {}

  function book.read(place, major)
    local key = base .. ':bucket:' .. place .. ':' .. major
    if cached[key] == nil then
      local text = run('GET', key)
      local record = text and record_of(text)
      doubt = doubt or (text and not record)
      cached[key] = record and expires_at(record) > now and record or false
    end
    return cached[key] or nil
  end

  function book.put(place, major, record)
    local key = base .. ':bucket:' .. place .. ':' .. major
    cached[key], changed[key] = record or false, true
  end

  function book.close()
    for key in pairs(changed) do
      local record = cached[key]
      if record then keep(key, text_of(record), expires_at(record)) else call('DEL', key) end
    end
  end

  return book
end

local function stops(base) -- until when the global limit is stopped, and everything
  local text = run('GET', base .. ':stop') or '0 0'
  local stopped, banned = string.match(text, '^(%d+) (%d+)$')
  return moment(stopped or text), moment(banned)
end

local function bucket_of(base, route) -- its digest, its former name's, and its name; nil: none yet
  local text = run('GET', base .. ':hash:' .. route)
  doubt = doubt or (text and not string.find(text, '^%S+ %S+ %C*$'))
  return string.match(text or '', '^(%S+) (%S+) (%C*)$')
end

local function bucket_record(book, route, major, current, former) -- a former name's bucket, and an unnamed one, move
  local unnamed = book.read(route, major)
  if not current then return unnamed end
  local record = book.read(current, major)
  if not record then
    record = book.read(former, major)
    if record then
      book.put(former, major, nil)
      book.put(current, major, record)
    end
  end
  if unnamed then
    if record then
      for permit, until_us in pairs(unnamed.in_flight) do add(record, permit, until_us) end
    end
    record = record or unnamed
    book.put(route, major, nil)
    book.put(current, major, record)
  end
  return record
end

-- The verbs. take: [verb, 1, permit, route, resource, per second, µs until it counts as lost]

local function why_not(base, record, route, major, per_second)
  local stopped, banned = stops(base)
  if now < banned then return BANNED, banned - now end
  if per_second == 0 then stopped = moment(run('GET', base .. ':exempt')) end
  if now < stopped then return STOPPED, stopped - now end
  local locked = moment(run('GET', base .. ':lock:' .. route .. ':' .. major))
  if now < locked then return ROUTE, locked - now end
  record.has_expired = expire(record)
  local wait = wait_for(record)
  if wait ~= 0 then return wait == AWAIT_RESPONSE and ANSWERS or BUCKET, wait end
  if per_second == 0 then return GO, 0 end
  local held = base .. ':held'
  run('ZREMRANGEBYSCORE', held, '-inf', whole(now))
  if call('ZCARD', held) < per_second then return GO, 0 end
  if call('ZREMRANGEBYSCORE', held, '(' .. whole(now + RETENTION), '+inf') > 0 then
    doubt = true
    if call('ZCARD', held) < per_second then return GO, 0 end
  end
  wait = math.ceil(tonumber(call('ZRANGE', held, 0, 0, 'WITHSCORES')[2]) - now)
  return GLOBAL, wait > SECOND and AWAIT_RESPONSE or wait
end

local function hold(base, permit, until_us)
  local key = base .. ':held'
  run('ZADD', key, whole(until_us), permit)
  local left_ms = math.ceil((until_us - now) / 1000) + slack
  if call('PTTL', key) < left_ms then call('PEXPIRE', key, left_ms) end
end

local function take(question, base)
  local permit, route, major, per_second = question[3], question[4], question[5], question[6]
  local book = open_book(base)
  local digest, former, bucket = bucket_of(base, route)
  local is_stored = bucket_record(book, route, major, digest, former)
  local record = is_stored or new_record()
  local cause, wait = why_not(base, record, route, major, per_second)
  if wait == 0 then
    local is_rested = record.limit == 0 and now > record.updated_at + IDLE
    if record.kind == HIDDEN then is_rested = now >= record.reset_max end
    if is_rested and record.calls == 0 then record.opened, record.passed = now, 0 end
    add(record, permit, now + question[7])
    if per_second > 0 then hold(base, permit, now + question[7]) end
  end
  if wait == 0 or (is_stored and record.has_expired) then book.put(digest or route, major, record) end
  book.close()
  for _, value in ipairs({
    cause + (doubt and 16 or 0), wait, bucket or '', record.limit, record.remaining, max(0, record.reset_max - now), record.kind, record.slot,
    record.calls
  }) do say(value) end
end

-- settle: [verb, 1, permit, route, resource, per second, digest of the bucket that it charges ("": none), sent,
--          verdict, bucket, its digest, limit, remaining, µs until the reset, µs to wait]

local function settle(question, base)
  local permit, route, major, charged, sent = question[3], question[4], question[5], question[7], question[8]
  local bucket, reported = question[10], question[11]
  local report = {
    verdict = question[9], limit = question[12], remaining = question[13], reset = question[14], retry = question[15]
  }
  local verdict, book = report.verdict, open_book(base)
  local current, former = bucket_of(base, route)
  local has_name = bucket ~= '' and (verdict == 'answered' or verdict == 'limited')
  local is_other = has_name and verdict == 'limited' and current and current ~= reported
  local is_renamed = has_name and not is_other
  if is_renamed and current ~= reported then current, former = reported, current or '-' end
  local record = bucket_record(book, route, major, current, former) or new_record()
  book.put(current or route, major, record)
  local place = charged ~= '' and charged or route
  local holder = book.read(place, major)
  if holder and holder ~= record then
    drop(holder, permit)
    book.put(place, major, holder)
  end
  drop(record, permit)
  if is_other then
    record = book.read(reported, major) or new_record()
    book.put(reported, major, record)
  end
  learn(record, report, sent)

  local stopped, banned = stops(base)
  local lock = base .. ':lock:' .. route .. ':' .. major
  local locked = verdict == 'limited' or verdict == 'sublimited'
  locked = locked and max(moment(run('GET', lock)), now + report.retry + LATE)
  if question[6] > 0 then
    run('ZREM', base .. ':held', permit)
    if verdict ~= 'unsent' then hold(base, permit, now + SECOND) end
  end
  if verdict == 'banned' then banned = max(banned, now + report.retry) end
  if verdict == 'stopped' then stopped = max(stopped, now + report.retry) end
  if verdict == 'stopped' and question[6] == 0 then
    local exempt = max(moment(run('GET', base .. ':exempt')), now + report.retry)
    keep(base .. ':exempt', whole(exempt), exempt)
  end
  if verdict == 'banned' or verdict == 'stopped' then
    keep(base .. ':stop', whole(stopped) .. ' ' .. whole(banned), max(stopped, banned))
  end
  if locked then keep(lock, whole(locked), locked) end
  if is_renamed then
    call('SET', base .. ':hash:' .. route, current .. ' ' .. former .. ' ' .. bucket, 'PX', WEEK / 1000 + slack)
  end
  book.close()
  say(doubt and 17 or 1)
end

function answer(question, place)
  if question[1] == 'take' then take(question, KEYS[place]) else settle(question, KEYS[place]) end
end
