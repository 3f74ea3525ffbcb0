-- Answers a batch of checks. It stands in frame.lua, and wire.py writes its questions.
--
-- shape   the question: [verb, number of keys, limit, limit, ...]; a check's first keys are those of blocks, then each
--         limit has one
-- reply   for each check: 1 charged, 0 not charged, and 2 more if a record was not believed; or, if the key is blocked,
--         twice the µs until the block's end, and 1 more if a record was not believed, below zero; with several blocks
--         then the number of the longest one, from 0. Then the states of its buckets.

local CENTURY = 3155760000000000

local kinds = {}

local function kind_of(limit)
  local name = limit[1]
  local kind = kinds[name]
  if not kind then
    local plain = string.upper(name)
    kind = plain == 'T' and tokens()
      or plain == 'L' and queue()
      or plain == 'F' and window()
      or plain == 'Q' and quota()
      or plain == 'C' and slots()
      or log()
    kind.is_soft = name ~= plain -- a soft limit refuses no call; a small letter says so
    kinds[name] = kind
  end
  return kind
end

local function block(key) -- µs until it ends; 0 if there is none
  local value = call('GET', key)
  if not value then return 0 end
  local until_us, length, more = numbers(value)
  if more > 0 then until_us, doubt = 0, true end
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

local function longest_block(first, last) -- µs until it ends, and its number
  local longest, number = block(KEYS[first]), 0
  for i = first + 1, last do
    local blocked = block(KEYS[i])
    if blocked > longest then longest, number = blocked, i - first end
  end
  return longest, number
end

local function say_refused(blocked, number)
  local flag = doubt and 1 or 0
  say(blocked > 0 and -(2 * blocked + flag) or 2 * flag)
  if blocked > 0 and number then say(number) end
end

local function take(limit, key)
  cut = false
  local a, b, after_a, after_b = kind_of(limit).take(limit, call('GET', key))
  return {a = a, b = b, after_a = after_a, after_b = after_b, cut = cut}
end

local function decide_all(shape, first, charge)
  local before, states = first + shape[2] - #shape - 1, {} -- what is added to a limit's place for that of its key
  local blocked, number = longest_block(first, before + 2)
  local allowed = charge and blocked <= 0
  for i = 3, #shape do
    states[i] = take(shape[i], KEYS[before + i])
    allowed = allowed and (states[i].after_a or kind_of(shape[i]).is_soft)
  end
  if allowed then say(doubt and 3 or 1) else say_refused(blocked, before + 2 > first and number) end
  for i = 3, #shape do
    local limit, key, state = shape[i], KEYS[before + i], states[i]
    local kind = kind_of(limit)
    if allowed and state.after_a then
      kind.store(limit, key, state.after_a, state.after_b)
      kind.report(state.after_a, state.after_b)
    else
      if charge and state.cut then kind.store(limit, key, state.a, state.b) end
      kind.report(state.a, state.b)
    end
    if kind.is_soft then say(state.after_a and 0 or 1) end
  end
end

local function decide_one(shape, first, charge) -- the usual case, without a table
  local limit, key = shape[3], KEYS[first + 1]
  local kind = kind_of(limit)
  if kind.is_soft then return decide_all(shape, first, charge) end
  local blocked = block(KEYS[first])
  cut = false
  local a, b, after_a, after_b = kind.take(limit, call('GET', key))
  if charge and after_a and blocked <= 0 then
    kind.store(limit, key, after_a, after_b)
    say(doubt and 3 or 1)
    kind.report(after_a, after_b)
  else
    if charge and cut then kind.store(limit, key, a, b) end
    say_refused(blocked)
    kind.report(a, b)
  end
end

-- refund: the cost of each limit is given back of a charge. owe: it is charged in any case. Replies 1, or 2 if a bucket
-- cannot owe all of it.
local function settle(shape, first)
  local verb, values, result = shape[1] == 'refund' and 'give_back' or 'owe', {}, 1
  for i = 3, #shape do values[i] = call('GET', KEYS[first + i - 3]) end
  for i = 3, #shape do
    local limit, key, kind, a, b = shape[i], KEYS[first + i - 3], kind_of(shape[i]), nil, nil
    cut = false
    if values[i] or verb == 'owe' then a, b = kind[verb](limit, values[i]) end
    if verb == 'owe' and cut then result = 2 end
    if a then kind.store(limit, key, a, b) else call('DEL', key) end
  end
  say(result)
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
    if #shape == 3 then return decide_one(shape, first, verb == 'decide') end
    return decide_all(shape, first, verb == 'decide')
  end
  if verb == 'refund' or verb == 'owe' then return settle(shape, first) end
  if verb == 'renew' then -- [verb, 1, limit, ids]
    local kind, value = kind_of(shape[3]), call('GET', KEYS[first])
    kind.store(shape[3], KEYS[first], kind.renew(shape[3], value, shape[4]))
  end
  if verb == 'reset' or (verb == 'block' and shape[3] == 0) then
    call('DEL', unpack(KEYS, first, first + shape[2] - 1))
  elseif verb == 'block' then -- [verb, 1, µs]
    keep(KEYS[first], digits(now + shape[3]) .. ':' .. digits(shape[3]), now + shape[3])
  elseif verb == 'probe' then
    call('GET', KEYS[first])
    call('SET', KEYS[first], 1, 'PX', 1000)
  end
  say(1)
end
