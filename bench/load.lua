-- What wrk sends: WORK is create, get, list, update or mix; IDS a file of record ids, one a line; QUERY that of a list, in
-- which RANDOM stands for another number each time.
-- At the end one line of JSON, behind "result ".

local work, query = os.getenv("WORK"), os.getenv("QUERY") or ""
local path = "/api/collections/posts/records"
local headers = { ["Content-Type"] = "application/json" }
local letters = "abcdefghijklmnopqrstuvwxyz0123456789"
local ids, text = {}, ""

-- Bytes of a new record's body.
local BODY = 200

local function random_text(length)
  local parts = {}
  for i = 1, length do
    local at = math.random(#letters)
    parts[i] = letters:sub(at, at)
  end
  return table.concat(parts)
end

-- A piece of a long random text: cheap, and no two bodies are alike.
local function piece(length)
  local at = math.random(#text - length)
  return text:sub(at, at + length - 1)
end

local function body()
  local head = string.format('{"title":"%s","views":%d,"published":true,"content":"', piece(24), math.random(100, 999))
  return head .. piece(BODY - #head - 2) .. '"}'
end

local function create()
  return wrk.format("POST", path, headers, body())
end

local function get()
  return wrk.format("GET", path .. "/" .. ids[math.random(#ids)])
end

local function update()
  return wrk.format("PATCH", path .. "/" .. ids[math.random(#ids)], headers, '{"views":' .. math.random(0, 999) .. "}")
end

local function list()
  local asked = query:gsub("RANDOM", math.random(100000))
  return wrk.format("GET", path .. "?" .. asked)
end

local function mix()
  if math.random(10) == 1 then return create() end
  return get()
end

-- Made before the load begins: wrk runs on the cores of what it measures.
local PREPARED = 8192

function init()
  math.randomseed(os.time())
  text = random_text(65536)
  for id in io.lines(os.getenv("IDS")) do ids[#ids + 1] = id end
  local make = ({ create = create, get = get, update = update, mix = mix, list = list })[work]
  local prepared = {}
  for i = 1, PREPARED do prepared[i] = make() end
  local at = 0
  request = function()
    at = at % PREPARED + 1
    return prepared[at]
  end
end

-- wrk looks whether there is a function of this name before `init` has run.
function request() end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'result {"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"failed":%d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
