-- The kind of limit that counts calls which go on. It stands behind limits.lua.
--
-- A value has sixteen bytes per slot in use: its id, and the end of its lease.
local function slots() -- limit: [kind, capacity, cost, lease µs, id of the slot that is released]
  local kind = {report = function(value) say(value or '') end}

  local function pair(value, index)
    return struct.unpack('<i8i8', value, index * 16 + 1)
  end

  local function is_believed(value)
    if #value == 0 or #value % 16 > 0 then return false end
    local last = -1
    for i = 0, #value / 16 - 1 do
      local id, finish = pair(value, i)
      if id <= last or id >= EXACT or finish < 0 or finish > EXACT then return false end
      last = id
    end
    return true
  end

  local function live(limit, value) -- the slots whose lease goes on; none ends later than a lease from now
    if not value then return '' end
    if not is_believed(value) then
      doubt = true
      return ''
    end
    local latest, kept, whole_value = now + limit[4], {}, true
    for i = 0, #value / 16 - 1 do
      local id, finish = pair(value, i)
      if finish > latest then
        finish, whole_value, doubt, cut = latest, false, true, true
      end
      if finish > now then
        kept[#kept + 1] = struct.pack('<i8i8', id, finish)
      else
        whole_value = false
      end
    end
    return whole_value and value or table.concat(kept)
  end

  function kind.take(limit, value)
    local present = live(limit, value)
    local count = #present / 16
    if count >= limit[2] then return present end
    local id = count > 0 and math.max(now, pair(present, count - 1) + 1) or now
    return present, nil, present .. struct.pack('<i8i8', id, now + limit[4])
  end

  local function without(present, id)
    for i = 0, #present / 16 - 1 do
      if pair(present, i) == id then return string.sub(present, 1, i * 16) .. string.sub(present, i * 16 + 17) end
    end
    return present
  end

  function kind.give_back(limit, value)
    local present = without(live(limit, value), limit[5])
    if present ~= '' then return present end
  end

  function kind.renew(limit, value, ids) -- the leases of these slots begin anew, also of those that were lost
    local present = live(limit, value)
    for _, id in ipairs(ids) do
      present = without(present, id)
      local place = #present / 16
      while place > 0 and pair(present, place - 1) > id do place = place - 1 end
      local slot = struct.pack('<i8i8', id, now + limit[4])
      present = string.sub(present, 1, place * 16) .. slot .. string.sub(present, place * 16 + 1)
    end
    return present
  end

  function kind.store(limit, key, value)
    keep(key, value, now + limit[4])
  end

  return kind
end
