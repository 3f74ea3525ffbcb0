-- The arithmetic of one bucket, as in bucket.py, in whole microseconds. permits.lua follows in the same script.

local max, min = math.max, math.min

local UNKNOWN, FIXED, SLIDING, HIDDEN = 0, 1, 2, 3
local AWAIT_RESPONSE = -1
local EARLY, LATE, SECOND, IDLE, RETENTION, EXPIRY = 1000, 1000, 1001000, 10000000, 60000000, 15000000
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

local function rewind(record) -- the clock went back since a response came: everything moves with it
  local back = record.updated_at - now
  if back > 0 then
    for _, field in ipairs({'reset_min', 'reset_max', 'updated_at', 'stopped', 'opened'}) do
      record[field] = max(0, record[field] - back)
    end
  end
  record.is_rewound = back > 0
  for permit, until_us in pairs(record.in_flight) do
    if until_us > now + EXPIRY then record.in_flight[permit], record.is_rewound = now + EXPIRY, true end
  end
  return record
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
      if record.in_flight[permit] or value > now + WEEK then return end
      record.in_flight[permit], record.calls, permit = value, record.calls + 1, nil
    end
  end
  if place >= 11 and not permit and is_plausible(record) then return rewind(record) end
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
  if record.limit == 0 then record.updated_at = now end
  record.remaining = max(0, record.remaining - 1)
  if record.kind == SLIDING then record.reset_max = record.reset_max + record.slot end
end

local function is_untouched(record) return record.limit == 0 and record.updated_at == 0 and record.calls == 1 end

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

local function wait_for(record, spare)
  spare = min(spare, max(0, record.limit - 1))
  local out = record.calls + spare
  if now < record.stopped then return record.stopped - now end
  if record.limit == 0 then return record.calls < record.probes and 0 or AWAIT_RESPONSE end
  if now >= record.reset_max then return out < record.limit and 0 or AWAIT_RESPONSE end
  if out < record.remaining then return 0 end
  if record.kind == SLIDING then
    local due = record.reset_max + out * (record.slot + LATE) - (record.limit - 1) * (record.slot - EARLY)
    return max(0, due - now)
  end
  return record.remaining > spare and AWAIT_RESPONSE or record.reset_max - now
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
  elseif report.verdict == 'sublimited' and record.limit == 0 then
    record.updated_at = now
  end
end
