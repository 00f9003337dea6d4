-- Every change of a job's state, each in one step that nobody sees half done.
--
-- KEYS  job:ID (a hash, and the channel's name), job:ID:lease, jobs (a sorted set, by time of creation)
-- ARGV  the change's name, the time in ISO 8601, then what that change takes
--
-- Whoever loses the connection before the answer runs a change again, so each may run twice.

local job, lease, index = KEYS[1], KEYS[2], KEYS[3]
local now = ARGV[2]

local FINAL = { completed = true, failed = true, cancelled = true }
local PRIVATE = { spec = true, leaseToken = true }
local TEXT = {
  id = true, status = true, error = true, collection = true, destination = true, driver = true,
  resultUrl = true, createdAt = true, startedAt = true, completedAt = true,
}
-- What a driver's snapshot replaces is everything but these.
local KEPT = {
  id = true, collection = true, destination = true, spec = true, driver = true, leaseToken = true,
  cancelRequested = true, version = true, createdAt = true, startedAt = true, completedAt = true,
}

local function get(field)
  return redis.call('HGET', job, field) or ''
end

-- The numbers are JSON already, as Python wrote them: cjson would keep 14 digits only.
local function as_json(flat)
  local members = {}
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if not PRIVATE[name] then
      members[#members + 1] = cjson.encode(name) .. ':' .. (TEXT[name] and cjson.encode(value) or value)
    end
  end
  return '{' .. table.concat(members, ',') .. '}'
end

local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

-- A version is the time in milliseconds, or one more than the last: it grows even if Redis forgot its last second.
local function commit()
  local version = string.format('%.0f', math.max(math.floor(clock_ms()), (tonumber(get('version')) or 0) + 1))
  redis.call('HSET', job, 'version', version)
  redis.call('PUBLISH', job, as_json(redis.call('HGETALL', job)))
  return version
end

local function snapshot()
  if get('status') == 'processing' and redis.call('EXISTS', lease) == 0 then
    redis.call('HSET', job, 'status', 'stalled')
    commit()
  end
  return redis.call('HGETALL', job)
end

local function field(name, ...)
  for i = 1, select('#', ...), 2 do
    if select(i, ...) == name then
      return (select(i + 1, ...))
    end
  end
end

-- A lease that ran out (a suspended laptop, a restart of Redis) is still its driver's until another takes the job.
local function is_held_by(token)
  local holder = redis.call('GET', lease)
  if holder then
    return holder == token
  end
  return get('leaseToken') == token and not FINAL[get('status')]
end

local change = {}

function change.create(...)
  if redis.call('EXISTS', job) == 0 then
    redis.call('HSET', job, 'createdAt', now, ...)
    redis.call('ZADD', index, string.format('%.3f', clock_ms()), get('id'))
    commit()
  end
  return snapshot()
end

function change.respecify(spec)
  if redis.call('EXISTS', job) == 1 then
    redis.call('HSET', job, 'spec', spec)
  end
end

function change.read()
  return snapshot()
end

-- The newest jobs; what has expired is forgotten on the way.
function change.list(limit)
  local found, start = {}, 0
  while #found < tonumber(limit) do
    local id = redis.call('ZREVRANGE', index, start, start)[1]
    if not id then
      break
    end
    job = 'job:' .. id
    lease = job .. ':lease'
    local flat = snapshot()
    if #flat == 0 then
      redis.call('ZREM', index, id)
    else
      found[#found + 1] = flat
      start = start + 1
    end
  end
  return found
end

function change.cancel(finished_ttl_s)
  local status = get('status')
  if status == '' or FINAL[status] then
    return snapshot()
  end
  if redis.call('EXISTS', lease) == 1 then
    redis.call('HSET', job, 'cancelRequested', 1)
  else
    redis.call('HSET', job, 'status', 'cancelled', 'completedAt', now)
    redis.call('HDEL', job, 'leaseToken')
    redis.call('EXPIRE', job, finished_ttl_s)
  end
  commit()
  return snapshot()
end

-- The lease of a driver that is known to be dead is free before it runs out.
function change.acquire(token, lease_ms, driver, dead_token)
  if redis.call('EXISTS', job) == 0 then
    return { 'missing', '', '' }
  end
  local holder = redis.call('GET', lease)
  if holder and holder ~= token and holder ~= dead_token then
    return { 'held', get('driver'), holder }
  end
  redis.call('SET', lease, token, 'PX', lease_ms)
  redis.call('PERSIST', job)
  redis.call('HDEL', job, 'cancelRequested')
  redis.call('HSET', job, 'status', 'processing', 'driver', driver, 'leaseToken', token,
    'startedAt', now, 'completedAt', '', 'error', '')
  return { 'acquired', commit(), token }
end

function change.publish(token, lease_ms, finished_ttl_s, ...)
  local status = field('status', ...)
  if FINAL[status] and get('status') == status and get('leaseToken') == token then
    return { get('version'), 0 } -- the second run of a last publish
  end
  if redis.call('EXISTS', job) == 0 or not is_held_by(token) then
    return { false, get('driver') }
  end
  for _, name in ipairs(redis.call('HKEYS', job)) do
    if not KEPT[name] then
      redis.call('HDEL', job, name)
    end
  end
  redis.call('HSET', job, ...)
  if FINAL[status] then
    if get('completedAt') == '' then
      redis.call('HSET', job, 'completedAt', now)
    end
    redis.call('DEL', lease)
    redis.call('EXPIRE', job, finished_ttl_s)
  else
    redis.call('SET', lease, token, 'PX', lease_ms)
  end
  return { commit(), tonumber(get('cancelRequested')) or 0 }
end

function change.release(token)
  if redis.call('GET', lease) == token then
    redis.call('DEL', lease)
  end
  if get('leaseToken') == token and not FINAL[get('status')] then
    redis.call('HDEL', job, 'leaseToken')
    snapshot()
  end
end

return change[ARGV[1]](unpack(ARGV, 3))
