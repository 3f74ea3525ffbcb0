-- The kinds of limit, which stand before checks.lua in its script.
--
-- The state of a token bucket is kept as "µs", or "µs:part:ticks" with a fraction of a microsecond in the ticks of the
-- limit that wrote it: a double holds each exactly, but not their sum in ticks. That of a window is "end:used" or
-- "end:used:debt:extra". A block is its end and its length.
--
-- A record is not believed if other software wrote it, or if the clock has gone back since. One that is too far ahead is
-- cut to what its limit allows, an empty bucket, and written anew even by a refusal.

local EXACT = 9007199254740991
local WIDEST = 93600000000 -- µs between the same midnight in two zones
local cut -- whether the last record was further ahead than its limit allows

local function append_both(one, other)
  reply[size + 1], reply[size + 2] = one, other
  size = size + 2
end

local function whole(number)
  return number >= 0 and number <= EXACT and number % 1 == 0 -- exact: no double skips a whole number below
end

-- Up to four numbers of a record. They are 0 if there is none, or if it is not believed.
local function numbers(value)
  if not value then return 0, 0, 0, 0 end
  local one, two, three, four = tonumber(value), 0, 0, 0
  if one then
    if one >= 0 and one <= EXACT and one % 1 == 0 then return one, 0, 0, 0 end
  else
    one, two, three, four = string.match(value, '^(%d+):(%d+):?(%d*):?(%d*)$')
    one, two, three, four = tonumber(one), tonumber(two), tonumber(three) or 0, tonumber(four) or 0
    if one and whole(one) and whole(two) and whole(three) and whole(four) then return one, two, three, four end
  end
  doubt = true
  return 0, 0, 0, 0
end

-- Each kind of limit has five functions. take(limit, value) returns the present state, and the state after the charge if
-- the charge is allowed. give_back(limit, value) returns the state after a refund, nil if the bucket is full then.
-- owe(limit, value) returns the state after a charge that is never refused, and sets `cut` if it cuts some of it off.
-- store(limit, key, state) stores a state, and report(state) appends it to the reply. A state is one or two values.
-- Each kind is made when it is first needed, since making them all takes longer than to answer one check.

local function tokens() -- limit: [kind, ticks, cost µs, part, depth µs, part, charged µs, part]
  local kind = {}

  local function lowest(limit) -- what is owed can be as much as the bucket holds
    local us, part = now + 2 * limit[5], 2 * limit[6]
    if part >= limit[2] then return us + 1, part - limit[2] end
    return us, part
  end

  function kind.level(limit, value)
    local us, part, ticks = numbers(value)
    if us < now then return now, 0 end
    if part == 0 and us - now <= limit[5] then return us, 0 end -- by far the most common case
    if part > 0 and ticks ~= limit[2] then us, part = us + 1, 0 end -- the limit has changed since
    local last, last_part = lowest(limit)
    if part >= limit[2] then
      doubt = true
      return now, 0
    end
    if us < last or (us == last and part <= last_part) or last + last_part == now then return us, part end
    doubt, cut = true, true
    return now + limit[5], limit[6]
  end

  local function charged(limit, us, part)
    us, part = us + limit[3], part + limit[4]
    if part >= limit[2] then return us + 1, part - limit[2] end
    return us, part
  end

  function kind.take(limit, value)
    local us, part = kind.level(limit, value)
    local after_us, after_part = us + limit[3], part + limit[4]
    if after_part >= limit[2] then
      after_us, after_part = after_us + 1, after_part - limit[2]
    end
    local last = now + limit[5]
    if after_us < last or (after_us == last and after_part <= limit[6]) then
      return us, part, after_us, after_part
    end
    return us, part
  end

  function kind.give_back(limit, value)
    local us, part = kind.level(limit, value)
    local back_us, back_part = limit[7] - now, limit[8] -- the part of the charge that has not flowed back by itself
    if back_us > limit[3] or (back_us == limit[3] and back_part > limit[4]) then
      back_us, back_part = limit[3], limit[4]
    end
    if back_us >= 0 then
      us, part = us - back_us, part - back_part
      if part < 0 then
        us, part = us - 1, part + limit[2]
      end
    end
    if us > now or (us == now and part > 0) then return us, part end
  end

  function kind.owe(limit, value)
    local us, part = charged(limit, kind.level(limit, value))
    local last, last_part = lowest(limit)
    cut = us > last or (us == last and part > last_part)
    if cut then return last, last_part end
    return us, part
  end

  function kind.store(limit, key, us, part)
    if part == 0 then
      keep(key, digits(us), us)
    else
      keep(key, digits(us) .. ':' .. digits(part) .. ':' .. digits(limit[2]), us + 1)
    end
  end

  kind.report = append_both
  return kind
end

local function queue() -- as tokens, but only the last place in the queue can be given back
  local kind = tokens()
  local give_back = kind.give_back

  function kind.give_back(limit, value)
    local us, part = kind.level(limit, value)
    if us == limit[7] and part == limit[8] then return give_back(limit, value) end
    if us > now or part > 0 then return us, part end
  end

  return kind
end

local function room(limit, extra) -- what a window holds, with what it has in addition
  return limit[2] + math.min(extra, limit[2])
end

-- A state is a table: the end of the window, the cost used in it, the part of that which is owed to the next window if
-- it does not fit into this one, and what this window has in addition to the capacity. The two kinds differ in
-- present(limit, state), nil if nothing is used, in the end of a fresh window, and in how long a record is kept.
local function counted(present, fresh_end, kept) -- limit: [kind, capacity, cost, longest window µs, ..., charged end]
  local kind = {}

  local function read(limit, value)
    if not value then return end
    local finish, used, debt, extra = numbers(value)
    if finish > 0 then return present(limit, {finish, used, debt, extra}) end
  end

  local function fresh(limit)
    return {fresh_end(limit), 0, 0, 0}
  end

  local function capped(number, low)
    return number > low and number or low
  end

  function kind.take(limit, value)
    local state = read(limit, value)
    local present = state or fresh(limit)
    local used, extra = present[2] + limit[3], present[4]
    if used > room(limit, extra) then return state end
    return state, nil, {present[1], used, present[3], extra}
  end

  function kind.give_back(limit, value)
    local state = read(limit, value)
    if not state or state[1] ~= limit[#limit] then return state end -- that window is over
    local used = capped(state[2] - limit[3], 0)
    if used == 0 and not kept(limit, 0, true) then return end
    return {state[1], used, math.min(state[3], capped(used - room(limit, state[4]), 0)), state[4]}
  end

  function kind.owe(limit, value)
    local finish, used, debt, extra = unpack(read(limit, value) or fresh(limit))
    local most = room(limit, extra)
    local after = math.min(used + limit[3], capped(used, most + limit[2]))
    cut = after < used + limit[3]
    return {finish, after, debt + capped(after - capped(used, most), 0), extra}
  end

  function kind.store(limit, key, state)
    local text = digits(state[1]) .. ':' .. digits(state[2])
    if state[3] > 0 or state[4] > 0 then text = text .. ':' .. digits(state[3]) .. ':' .. digits(state[4]) end
    keep(key, text, state[1] + kept(limit, state[3]))
  end

  function kind.report(state)
    state = state or {0, 0, 0, 0}
    reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4] = state[1], state[2], state[3], state[4]
    size = size + 4
  end

  return kind
end

local function owed(limit, state) -- what the next window begins with
  return math.min(state[3], limit[2], math.max(0, state[2] - room(limit, state[4])))
end

local function window() -- limit: [kind, capacity, cost, period µs, charged end]
  return counted(
    function(limit, state)
      local last = now + limit[4]
      if state[1] > now then
        if state[1] > last then doubt, cut, state[1] = true, true, last end
        state[4] = 0
        return state
      end
      local debt, finish = owed(limit, state), state[1] + limit[4]
      if debt > 0 and finish > now then return {finish, debt, debt, 0} end
    end,
    function(limit) return now + limit[4] end,
    function(limit, debt, unused) return not unused and (debt > 0 and limit[4] or 0) end
  )
end

-- limit: [kind, capacity, cost, longest period µs, rollover, five boundaries, charged end]. The present period begins
-- with the third boundary, unless the clock of this server has passed another one.
local function quota()
  local function period(limit)
    local first, last = limit[6], limit[10]
    if now < first or now >= last then -- the process had no idea of this server's time: periods of a usual length
      local length = last - limit[9]
      local start = last + math.floor((now - last) / length) * length
      return start - 2 * length, start - length, start, start + length
    end
    local i = 9
    while now < limit[i] do i = i - 1 end
    local last = i > 6 and limit[i - 1] or first - limit[4]
    return i > 7 and limit[i - 2] or last - limit[4], last, limit[i], limit[i + 1]
  end

  local function kept(limit, debt, unused)
    if unused then return limit[5] > 0 end
    return (limit[5] > 0 and 5 or debt > 0 and 3 or 1) * limit[4] / 2
  end

  return counted(
    function(limit, state)
      local before_last, last, start, finish = period(limit)
      if 2 * state[1] > start + finish or state[1] > math.max(now, start + WIDEST) then
        if state[1] > finish then doubt, cut = true, true end
        state[1] = finish
        return state
      end
      local capacity, rollover = limit[2], limit[5]
      if 2 * state[1] <= last + start then
        if rollover == 0 or 2 * state[1] <= before_last + last then return end
        return {finish, 0, 0, math.floor(capacity * rollover)}
      end
      local debt, left = owed(limit, state), math.max(0, math.min(capacity, room(limit, state[4]) - state[2]))
      if debt > 0 or rollover > 0 then return {finish, debt, debt, math.floor(left * rollover)} end
    end,
    function(limit) return (select(4, period(limit))) end,
    kept
  )
end

local function log() -- limit: [kind, capacity, cost, period µs, moment of the charge]; a value has eight bytes per call
  local kind = {report = function(calls) say(calls or '') end}

  local function moment(calls, index)
    return (struct.unpack('<i8', calls, index * 8 + 1))
  end

  local function times(us, count)
    return string.rep(struct.pack('<i8', us), count)
  end

  local function count_until(calls, us) -- the number of calls at `us` or before
    local low, high = 0, #calls / 8
    while low < high do
      local middle = math.floor((low + high) / 2)
      if moment(calls, middle) <= us then low = middle + 1 else high = middle end
    end
    return low
  end

  -- No call is later than now unless it is owed: then there are as many before it as the limit allows.
  local function believed(limit, calls)
    local count = #calls / 8
    if count == 0 or moment(calls, count - 1) <= now then return calls end
    local room, past = math.min(count, limit[2]), count_until(calls, now)
    if past < room then
      doubt, cut = true, limit[2] > 0
      calls = string.sub(calls, 1, past * 8) .. times(now, room - past) .. string.sub(calls, room * 8 + 1)
    end
    local sure = count_until(calls, now + limit[4])
    if sure < count then
      doubt, cut = true, limit[2] > 0
      calls = string.sub(calls, 1, sure * 8) .. times(now + limit[4], count - sure)
    end
    return calls
  end

  local function in_period(limit, calls)
    if not calls then return '' end
    local last = #calls > 0 and #calls % 8 == 0 and moment(calls, #calls / 8 - 1)
    if not last or last > EXACT then
      doubt = true
      return ''
    end
    if last <= now - limit[4] then return '' end
    return believed(limit, string.sub(calls, count_until(calls, now - limit[4]) * 8 + 1))
  end

  function kind.take(limit, value)
    local calls = in_period(limit, value)
    if #calls / 8 + limit[3] > limit[2] then return calls end
    return calls, nil, calls .. times(now, limit[3])
  end

  function kind.give_back(limit, value)
    local calls = in_period(limit, value)
    local first, last = count_until(calls, limit[5] - 1), count_until(calls, limit[5])
    calls = string.sub(calls, 1, first * 8) .. string.sub(calls, math.min(last, first + limit[3]) * 8 + 1)
    calls = believed(limit, calls)
    if calls ~= '' then return calls end
  end

  function kind.owe(limit, value)
    local calls, capacity = in_period(limit, value), limit[2]
    local free = math.max(0, math.min(limit[3], capacity - #calls / 8))
    calls = calls .. times(now, free)
    local count = #calls / 8
    local owed = math.max(0, math.min(limit[3] - free, 2 * capacity - count))
    local after = {calls}
    for i = count - capacity, count - capacity + owed - 1 do
      after[#after + 1] = times(moment(calls, i) + limit[4], 1)
    end
    cut = free + owed < limit[3]
    if count > 0 then return table.concat(after) end
  end

  function kind.store(limit, key, calls)
    keep(key, calls, moment(calls, #calls / 8 - 1) + limit[4])
  end

  return kind
end
