-- Gives permits for calls to Discord and takes them back: bucket.py and MemoryPermits, as Redis runs them.
-- It stands in frame.lua, after bucket.lua.
--
-- KEYS    for each question one key, that of the owner's permits; nothing is stored there. All of an owner's records have
--         names that begin with it, so they have its hash tag and are in its slot:
--           :held                            a sorted set: permits under the global limit, until when they count
--           :stop                            until when the global limit, and everything, is stopped: "µs µs", and when
--                                            that was written
--           :exempt                          until when calls are stopped that the global limit does not count, and when
--                                            that was written
--           :hash:<route>                    the bucket that responses reported: its digest, its former one's, its name
--           :lock:<route>:<resource>         until when a kind of call is stopped, and when that was written
--           :bucket:<bucket>:<resource>      LearnedBucket.as_text(); a route before it has a bucket
-- reply   for each question its answer, an integer first, which is 16 more if a record was not believed, and 32 more for
--         a permit of a bucket in which no other call may have been counted
--
-- Names in keys are digests. All numbers are whole and below 2^53, so a double holds them exactly.

local function moment(text) -- 0 if there is none, or if it is not believed
  local us = number(text) or 0
  doubt = doubt or us > now + WEEK
  return us > now + WEEK and 0 or us
end

-- Moments with the time at which they were written, which shows that the clock went back: then they move with it.

local function keep_stops(key, ...)
  local words = {}
  for i, until_us in ipairs({...}) do words[i] = whole(until_us) end
  words[#words + 1] = whole(now)
  keep(key, table.concat(words, ' '), max(...))
end

local function stops(key, count)
  local moments = {}
  for word in string.gmatch(run('GET', key) or '', '%S+') do moments[#moments + 1] = moment(word) end
  for i = 1, count do moments[i] = moments[i] or 0 end
  local back = (moments[count + 1] or now) - now
  if back > 0 then
    for i = 1, count do moments[i] = max(0, moments[i] - back) end
    keep_stops(key, unpack(moments, 1, count))
  end
  return unpack(moments, 1, count)
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

-- The verbs. take: [verb, 1, permit, route, resource, per second, µs until it counts as lost, calls that
-- are left to others, 1: with a census, the resource of its bucket]

local function why_not(base, record, route, major, per_second, spare)
  local stopped, banned = stops(base .. ':stop', 2)
  if now < banned then return BANNED, banned - now end
  if per_second == 0 then stopped = stops(base .. ':exempt', 1) end
  if now < stopped then return STOPPED, stopped - now end
  local locked = stops(base .. ':lock:' .. route .. ':' .. major, 1)
  if now < locked then return ROUTE, locked - now end
  record.has_expired = expire(record)
  local wait = wait_for(record, spare)
  if wait ~= 0 then return wait == AWAIT_RESPONSE and ANSWERS or BUCKET, wait end
  if per_second == 0 then return GO, 0 end
  local held = base .. ':held'
  run('ZREMRANGEBYSCORE', held, '-inf', whole(now))
  if call('ZCARD', held) < per_second then return GO, 0 end
  for _, permit in ipairs(call('ZRANGEBYSCORE', held, '(' .. whole(now + EXPIRY), '+inf')) do
    call('ZADD', held, whole(now + SECOND), permit) -- the clock went back
    doubt = true
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

local function census(held) -- how many processes have permits under the global limit; their names begin alike
  local seen, count = {}, 0
  for _, permit in ipairs(call('ZRANGE', held, 0, -1)) do
    local process = string.sub(permit, 1, 12)
    if not seen[process] then seen[process], count = true, count + 1 end
  end
  return count
end

local function take(question, base)
  local permit, route, major, per_second = question[3], question[4], question[5], question[6]
  local book, resource, spare = open_book(base), question[10], question[8]
  local digest, former, bucket = bucket_of(base, route)
  local is_stored = bucket_record(book, route, resource, digest, former)
  local record = is_stored or new_record()
  local cause, wait = why_not(base, record, route, major, per_second, spare)
  if wait == 0 then
    local is_rested = record.limit == 0 and now > record.updated_at + IDLE
    if record.kind == HIDDEN then is_rested = now >= record.reset_max end
    if is_rested and record.calls == 0 then record.opened, record.passed = now, 0 end
    add(record, permit, now + question[7])
    if per_second > 0 then hold(base, permit, now + question[7]) end
  end
  if wait == 0 or (is_stored and (record.has_expired or record.is_rewound)) then book.put(digest or route, resource, record) end
  book.close()
  local mark = wait == 0 and spare == 0 and is_untouched(record) and 32 or 0
  for _, value in ipairs({
    cause + mark + (doubt and 16 or 0), wait, bucket or '', record.limit, record.remaining, max(0, record.reset_max - now), record.kind, record.slot,
    record.calls, question[9] == 1 and per_second > 0 and census(base .. ':held') or 0
  }) do say(value) end
end

-- settle: [verb, 1, permit, route, resource, per second, digest of the bucket that it charges ("": none), sent,
--          verdict, bucket, its digest, limit, remaining, µs until the reset, µs to wait, the resource of its bucket]

local function settle(question, base)
  local permit, route, major, charged, sent = question[3], question[4], question[5], question[7], min(question[8], now)
  local bucket, reported = question[10], question[11]
  local report = {
    verdict = question[9], limit = question[12], remaining = question[13], reset = question[14], retry = question[15]
  }
  local verdict, book, resource = report.verdict, open_book(base), question[16]
  local current, former = bucket_of(base, route)
  local has_name = bucket ~= '' and (verdict == 'answered' or verdict == 'limited')
  local is_other = has_name and verdict == 'limited' and current and current ~= reported
  local is_renamed = has_name and not is_other
  if is_renamed and current ~= reported then current, former = reported, current or '-' end
  local record = bucket_record(book, route, resource, current, former) or new_record()
  book.put(current or route, resource, record)
  local place = charged ~= '' and charged or route
  local holder = book.read(place, resource)
  if holder and holder ~= record then
    drop(holder, permit)
    book.put(place, resource, holder)
  end
  drop(record, permit)
  if is_other then
    record = book.read(reported, resource) or new_record()
    book.put(reported, resource, record)
  end
  learn(record, report, sent)

  local verdict_us = now + report.retry
  local lock = base .. ':lock:' .. route .. ':' .. major
  if question[6] > 0 then
    run('ZREM', base .. ':held', permit)
    if verdict ~= 'unsent' then hold(base, permit, now + SECOND) end
  end
  if verdict == 'banned' or verdict == 'stopped' then
    local stopped, banned = stops(base .. ':stop', 2)
    if verdict == 'banned' then banned = max(banned, verdict_us) else stopped = max(stopped, verdict_us) end
    keep_stops(base .. ':stop', stopped, banned)
  end
  if verdict == 'stopped' and question[6] == 0 then
    keep_stops(base .. ':exempt', max(stops(base .. ':exempt', 1), verdict_us))
  end
  if verdict == 'limited' or verdict == 'sublimited' then
    keep_stops(lock, max(stops(lock, 1), verdict_us + LATE))
  end
  if is_renamed then
    call('SET', base .. ':hash:' .. route, current .. ' ' .. former .. ' ' .. bucket, 'PX', WEEK / 1000 + slack)
  end
  book.close()
  say(doubt and 17 or 1)
end

function answer(question, place)
  if question[1] == 'take' then take(question, KEYS[place]) else settle(question, KEYS[place]) end
end
