-- Answers a batch of checks. It stands in frame.lua, and wire.py writes its questions.
--
-- shape   the question: [verb, number of keys, limit, limit, ...]; a check's first key is that of the block
-- reply   for each check: 1 charged, 0 not charged, and 2 more if a record was not believed; or, if the key is blocked,
--         twice the µs until the block's end, and 1 more if a record was not believed, below zero. Then the states of
--         its buckets.
--
-- States are kept as "µs:part", a moment and a fraction of a microsecond counted in the limit's own ticks (or, of a
-- fixed window, its end and what is used of it): a double holds either exactly, but not their sum in ticks. A block is
-- its end and its length.
--
-- A record is not believed if other software wrote it, or if the clock has gone back since. It is cut to what its limit
-- allows.

local CENTURY, EXACT = 3155760000000000, 9007199254740991

local function append_both(one, other)
  reply[size + 1], reply[size + 2] = one, other
  size = size + 2
end

local function pair(value) -- 0, 0 if there is none, or if it is not believed
  if not value then return 0, 0 end
  local us, part = tonumber(value), 0
  if not us then
    us, part = string.match(value, '^(%d+):(%d+)$')
    us, part = tonumber(us), tonumber(part)
  end
  -- Both are exact: whole numbers, and no double skips one.
  if us and us >= 0 and us <= EXACT and part <= EXACT and us % 1 == 0 then return us, part end
  doubt = true
  return 0, 0
end

-- Each kind of limit has four functions. take(limit, value) returns the present state, and the state after the charge if
-- the charge is allowed. give_back(limit, value) returns the state after a refund, nil if the bucket is full then.
-- store(limit, key, state) stores it, and report(state) appends it to the reply.
-- Each kind is made when it is first needed, since making them all takes longer than to answer one check.

local function tokens() -- limit: [kind, ticks, cost µs, part, depth µs, part, charged µs, part]
  local kind = {}

  function kind.level(limit, value)
    local us, part = pair(value)
    local last = now + limit[5]
    if us < now then return now, 0 end
    if part < limit[2] and (us < last or (us == last and part <= limit[6])) then return us, part end
    doubt = true
    return now, 0
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

  function kind.store(_, key, us, part)
    if part == 0 then
      keep(key, digits(us), us)
    else
      keep(key, digits(us) .. ':' .. digits(part), us + 1)
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

local function window() -- limit: [kind, period µs, capacity, cost, end of the charged window]
  local kind = {report = append_both}

  local function open(limit, value) -- 0, 0 if no window is
    local finish, used = pair(value)
    if finish <= now then return 0, 0 end
    doubt = doubt or finish > now + limit[2] or used > limit[3]
    if finish > now + limit[2] then return 0, 0 end
    return finish, math.min(used, limit[3])
  end

  function kind.take(limit, value)
    local finish, used = open(limit, value)
    if used + limit[4] > limit[3] then return finish, used end
    return finish, used, finish > 0 and finish or now + limit[2], used + limit[4]
  end

  function kind.give_back(limit, value)
    local finish, used = open(limit, value)
    if finish == 0 then return end
    if finish ~= limit[5] then return finish, used end
    if used > limit[4] then return finish, used - limit[4] end
  end

  function kind.store(_, key, finish, used)
    keep(key, digits(finish) .. ':' .. digits(used), finish)
  end

  return kind
end

local function log() -- limit: [kind, period µs, capacity, cost, moment of the charge]; a value has eight bytes per call
  local kind = {report = say}

  local function moment(calls, index)
    return (struct.unpack('<i8', calls, index * 8 + 1))
  end

  local function count_until(calls, us) -- the number of calls at `us` or before
    local low, high = 0, #calls / 8
    while low < high do
      local middle = math.floor((low + high) / 2)
      if moment(calls, middle) <= us then low = middle + 1 else high = middle end
    end
    return low
  end

  local function in_period(limit, calls)
    if not calls then return '' end
    local last = #calls > 0 and #calls % 8 == 0 and moment(calls, #calls / 8 - 1)
    doubt = doubt or not last or last > now or #calls > limit[3] * 8
    if not last or last > now or last <= now - limit[2] then return '' end
    calls = string.sub(calls, -limit[3] * 8)
    return string.sub(calls, count_until(calls, now - limit[2]) * 8 + 1)
  end

  function kind.take(limit, value)
    local calls = in_period(limit, value)
    if #calls / 8 + limit[4] > limit[3] then return calls end
    return calls, nil, calls .. string.rep(struct.pack('<i8', now), limit[4])
  end

  function kind.give_back(limit, value)
    local calls = in_period(limit, value)
    local first, last = count_until(calls, limit[5] - 1), count_until(calls, limit[5])
    calls = string.sub(calls, 1, first * 8) .. string.sub(calls, math.min(last, first + limit[4]) * 8 + 1)
    if calls ~= '' then return calls end
  end

  function kind.store(limit, key, calls)
    keep(key, calls, moment(calls, #calls / 8 - 1) + limit[2])
  end

  return kind
end

local kinds = {}

local function kind_of(limit)
  local name = limit[1]
  if not kinds[name] then
    kinds[name] = name == 'T' and tokens() or name == 'L' and queue() or name == 'F' and window() or log()
  end
  return kinds[name]
end

-- The verbs. Each takes a shape and the place of the check's first key.

local function block(key) -- µs until it ends; 0 if there is none
  local value = call('GET', key)
  if not value then return 0 end
  local until_us, length = pair(value)
  local left = math.max(0, until_us - now)
  local longest = length > 0 and length or CENTURY -- blocks once had no length
  if longest > CENTURY or (length == 0 and left > CENTURY) then
    doubt, left = true, 0
  elseif left > longest then
    doubt, left = true, longest
    keep(key, digits(now + longest) .. ':' .. digits(longest), now + longest)
  end
  if doubt and left == 0 then call('DEL', key) end
  return left
end

local function say_refused(blocked)
  local flag = doubt and 1 or 0
  say(blocked > 0 and -(2 * blocked + flag) or 2 * flag)
end

local function decide_one(limit, first, charge) -- the usual case, without a table
  local blocked, key, kind = block(KEYS[first]), KEYS[first + 1], kind_of(limit)
  local a, b, after_a, after_b = kind.take(limit, call('GET', key))
  if charge and after_a and blocked <= 0 then
    kind.store(limit, key, after_a, after_b)
    say(doubt and 3 or 1)
    kind.report(after_a, after_b)
  else
    say_refused(blocked)
    kind.report(a, b)
  end
end

local function decide_all(shape, first, charge)
  local blocked, states = block(KEYS[first]), {}
  local allowed = charge and blocked <= 0
  for i = 3, #shape do
    local state = {kind_of(shape[i]).take(shape[i], call('GET', KEYS[first + i - 2]))}
    states[i] = state
    allowed = allowed and state[3]
  end
  if allowed then say(doubt and 3 or 1) else say_refused(blocked) end
  for i = 3, #shape do
    local state, kind = states[i], kind_of(shape[i])
    if allowed then
      kind.store(shape[i], KEYS[first + i - 2], state[3], state[4])
      kind.report(state[3], state[4])
    else
      kind.report(state[1], state[2])
    end
  end
end

local function refund(shape, first)
  local values = {}
  for i = 3, #shape do values[i] = call('GET', KEYS[first + i - 3]) end
  for i = 3, #shape do
    local key, kind, a, b = KEYS[first + i - 3], kind_of(shape[i]), nil, nil
    if values[i] then a, b = kind.give_back(shape[i], values[i]) end
    if a then kind.store(shape[i], key, a, b) else call('DEL', key) end
  end
end

-- Records of a wrong type are dropped, since other software wrote them. No verb has written anything before it has read
-- all of its records, so it can be run again.
function repair(shape, first)
  local repaired = false
  for i = first, first + shape[2] - 1 do
    local result = redis.pcall('GET', KEYS[i])
    if type(result) == 'table' and string.find(result.err, 'WRONGTYPE', 1, true) then
      call('DEL', KEYS[i])
      doubt, repaired = true, true
    end
  end
  return repaired
end

function answer(shape, first)
  local verb = shape[1]
  if verb == 'decide' or verb == 'peek' then
    if #shape == 3 then return decide_one(shape[3], first, verb == 'decide') end
    return decide_all(shape, first, verb == 'decide')
  end
  if verb == 'refund' then
    refund(shape, first)
  elseif verb == 'reset' or (verb == 'block' and shape[3] == 0) then
    call('DEL', unpack(KEYS, first, first + shape[2] - 1))
  elseif verb == 'block' then -- [verb, 1, µs]
    keep(KEYS[first], digits(now + shape[3]) .. ':' .. digits(shape[3]), now + shape[3])
  elseif verb == 'probe' then
    call('GET', KEYS[first])
    call('SET', KEYS[first], 1, 'PX', 1000)
  end
  say(1)
end
