-- The frame of every script: one reading of the clock, one reply. An error ends its own question only.
--
-- ARGV    the time in µs ("": this server's own), the number of the call, then for each run of equal questions: the
--         question, how many
-- KEYS    the keys of all questions, one question after the other
-- A question is JSON: [verb, number of keys, ...]. The script defines answer(question, place of its first key).
-- It appends its results with say(value), and stores a record until a moment in µs with keep(key, value, until_us).
-- digits(number) writes a whole number.
-- The reply is the time in µs, then the results of each question, or its error message instead of them, then the
-- number of the call. `doubt` is whether a record of this question was not believed. If an answer fails, and the script
-- defines repair(question, place of its first key), and that returns true, the question is answered once more.

local call, format = redis.call, string.format
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

-- %d takes half as long as %.0f, and is exact where the server's long integers have 64 bits.
local WHOLE = format('%d', 9007199254740991) == '9007199254740991' and '%d' or '%.0f'

local function digits(number)
  return format(WHOLE, number)
end

local function keep(key, value, until_us)
  call('SET', key, value, 'PX', digits(math.max(1, math.ceil((until_us - now) / 1000)) + slack))
end

local answer, repair

--[[SCRIPT]]

local questions = {}
for run = 3, #ARGV, 2 do
  local text = ARGV[run]
  questions[text] = questions[text] or cjson.decode(text)
end

local run, done, place = 3, 0, 1 -- the questions that are answered: all runs before this one, and so many of its own
local before, repaired = 1, 0 -- the size of the reply before the present question, and the place of the last repair

local function answer_the_rest()
  while run < #ARGV do
    local question, count = questions[ARGV[run]], tonumber(ARGV[run + 1])
    local keys = question[2]
    while done < count do
      before, doubt = size, repaired == place
      answer(question, place)
      done, place = done + 1, place + keys
    end
    run, done = run + 2, 0
  end
end

while true do
  local succeeded, problem = pcall(answer_the_rest)
  if succeeded then break end
  for i = before + 1, size do reply[i] = nil end
  size = before
  local question = questions[ARGV[run]]
  if repair and repaired ~= place and repair(question, place) then
    repaired = place
  else
    say(type(problem) == 'table' and problem.err or tostring(problem))
    done, place = done + 1, place + question[2]
  end
end
say(tonumber(ARGV[2]))
return reply
