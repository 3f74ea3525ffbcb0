-- The frame of every script: one reading of the clock, one reply. An error ends its own question only.
--
-- ARGV    the time in µs ("": this server's own), the number of the call, then for each run of equal questions: the
--         question, how many
-- KEYS    the keys of all questions, one question after the other
-- A question is JSON: [verb, number of keys, ...]. The script defines answer(question, place of its first key).
-- It appends its results with say(value), and stores a record until a moment in µs with keep(key, value, until_us).
-- The reply is the time in µs, then the results of each question, or its error message instead of them, then the
-- number of the call. `doubt` is whether a record of this question was not believed. If an answer fails, and the script
-- defines repair(question, place of its first key), and that returns true, the question is answered once more.

local call = redis.call
local now, slack = tonumber(ARGV[1]), 86400000 -- a test's clock stands still while records expire by the server's
if not now then
  local time = call('TIME')
  now, slack = time[1] * 1000000 + time[2], 0
end

local reply, size, doubt = {now}, 1, false

local function say(value)
  size = size + 1
  reply[size] = value
end

local function keep(key, value, until_us)
  call('SET', key, value, 'PX', math.max(1, math.ceil((until_us - now) / 1000)) + slack)
end

local answer, repair

--[[SCRIPT]]

local questions, place = {}, 1
for run = 3, #ARGV, 2 do
  local text = ARGV[run]
  local question = questions[text] or cjson.decode(text)
  questions[text] = question
  for _ = 1, tonumber(ARGV[run + 1]) do
    local before = size
    doubt = false
    local succeeded, problem = pcall(answer, question, place)
    if not succeeded and repair and repair(question, place) then
      size = before
      succeeded, problem = pcall(answer, question, place)
    end
    if not succeeded then
      for i = before + 1, size do reply[i] = nil end
      size = before
      say(type(problem) == 'table' and problem.err or tostring(problem))
    end
    place = place + question[2]
  end
end
say(tonumber(ARGV[2]))
return reply
