-- Every change of a job's state, each in one step that nobody sees half done.
--
-- KEYS  job:ID (a hash, and the channel's name), job:ID:lease, jobs (a sorted set, by time of creation; jobs:OWNER has
--       those of one client), queue (a sorted set of the jobs that wait, and a channel that says when one has come),
--       queue:claimed (a sorted set of those that queue workers run), totals (a hash of sums over all jobs)
-- ARGV  the change's name, the time in ISO 8601, then what that change takes
--
-- Whoever loses the connection before the answer runs a change again, so each may run twice.

local job, lease, index, queue, claimed, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local now = ARGV[2]

local FINAL = { completed = true, failed = true, cancelled = true }
local PRIVATE = { spec = true, leaseToken = true, redo = true, losses = true }
local TEXT = {
  id = true, status = true, error = true, collection = true, destination = true, driver = true,
  resultUrl = true, createdAt = true, startedAt = true, completedAt = true, owner = true,
}
-- What a driver's snapshot replaces is everything but these.
local KEPT = {
  id = true, collection = true, destination = true, spec = true, driver = true, leaseToken = true,
  cancelRequested = true, version = true, createdAt = true, startedAt = true, completedAt = true,
  owner = true, redo = true, losses = true, recipe = true,
}
-- What adds up over all jobs, for metrics.
local SUMMED = {
  'stored', 'skipped', 'failed', 'bytesIn', 'bytesOut',
  'secondsFetch', 'secondsResize', 'secondsEnhance', 'secondsStore',
}
-- A job whose queue worker died so often while it ran is not tried again.
local MAX_LOSSES = 5
-- How many jobs that are kept no more one look at the list takes out of it.
local MAX_FORGOTTEN = 1000

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

-- Whatever the next change works on.
local function turn_to(id)
  job = 'job:' .. id
  lease = job .. ':lease'
end

local function as_pairs(flat)
  local found = {}
  for i = 1, #flat, 2 do
    found[flat[i]] = flat[i + 1]
  end
  return found
end

-- Add what a snapshot has more than the one before it.
local function sum_up(old, new)
  for _, name in ipairs(SUMMED) do
    local more = (tonumber(new[name]) or 0) - (tonumber(old[name]) or 0)
    if more > 0 then
      redis.call('HINCRBYFLOAT', totals, name, string.format('%.17g', more))
    end
  end
  local before = cjson.decode(old.errors or '{}')
  for name, count in pairs(cjson.decode(new.errors or '{}')) do
    if count > (before[name] or 0) then
      redis.call('HINCRBY', totals, 'errors:' .. name, count - (before[name] or 0))
    end
  end
  if FINAL[new.status] then
    redis.call('HINCRBY', totals, 'jobs:' .. new.status, 1)
  end
end

local function finish(finished_ttl_s)
  if get('completedAt') == '' then
    redis.call('HSET', job, 'completedAt', now)
  end
  redis.call('DEL', lease)
  redis.call('ZREM', queue, get('id'))
  redis.call('ZREM', claimed, get('id'))
  redis.call('EXPIRE', job, finished_ttl_s)
end

-- End a job that nobody drives.
local function give_up(status, reason, finished_ttl_s)
  redis.call('HSET', job, 'status', status, 'error', reason)
  redis.call('HDEL', job, 'leaseToken')
  redis.call('HINCRBY', totals, 'jobs:' .. status, 1)
  finish(finished_ttl_s)
  commit()
end

local function snapshot()
  if get('status') ~= 'processing' or redis.call('EXISTS', lease) == 1 then
    return redis.call('HGETALL', job)
  end
  -- A server that refuses to write (it is full, or a replica) can still say how things are.
  local answer = redis.pcall('HSET', job, 'status', 'stalled')
  local is_refused = type(answer) == 'table' and answer.err
  if not is_refused then
    commit()
  end
  local flat = redis.call('HGETALL', job)
  for i = 1, #flat, 2 do
    if flat[i] == 'status' then
      flat[i + 1] = 'stalled'
    end
  end
  return flat
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

-- What everybody may see of it, as its channel carries it, and whose it is.
function change.show()
  local flat = snapshot()
  if #flat == 0 then
    return {}
  end
  return { as_json(flat), get('owner') }
end

-- A few of the oldest jobs of an index that are kept no more: it grows with the jobs that there are, not for ever.
local function forget_expired(name)
  for _, id in ipairs(redis.call('ZRANGE', name, 0, 3)) do
    if redis.call('EXISTS', 'job:' .. id) == 0 then
      redis.call('ZREM', name, id)
    end
  end
end

local function enter_queue(score)
  redis.call('ZADD', queue, score, get('id'))
  commit()
  redis.call('PUBLISH', queue, get('id'))
end

function change.enqueue(limit, owner, ...)
  if redis.call('EXISTS', job) == 1 then
    return 'exists'
  end
  if redis.call('ZCARD', queue) >= tonumber(limit) then
    return 'full'
  end
  redis.call('HSET', job, 'createdAt', now, 'owner', owner, ...)
  local time = string.format('%.3f', clock_ms())
  redis.call('ZADD', index, time, get('id'))
  forget_expired(index)
  if owner ~= '' then
    redis.call('ZADD', index .. ':' .. owner, time, get('id'))
    forget_expired(index .. ':' .. owner)
  end
  enter_queue(time)
  return 'queued'
end

-- Have a job that has ended, or whose driver is gone, run again: what failed and what is left.
function change.requeue(limit)
  local status = field('status', unpack(snapshot()))
  if not status then
    return 'missing'
  end
  if status == 'queued' or status == 'processing' then
    return 'busy'
  end
  if redis.call('ZCARD', queue) >= tonumber(limit) then
    return 'full'
  end
  redis.call('HSET', job, 'status', 'queued', 'redo', status, 'completedAt', '', 'error', '')
  -- Its last driver, should it still live, has lost it.
  redis.call('HDEL', job, 'losses', 'cancelRequested', 'leaseToken')
  redis.call('ZREM', claimed, get('id'))
  redis.call('PERSIST', job)
  enter_queue(string.format('%.3f', clock_ms()))
  return 'queued'
end

-- The newest jobs; what has expired is forgotten on the way.
function change.list(limit, owner)
  local found, start = {}, 0
  if owner and owner ~= '' then
    index = index .. ':' .. owner
  end
  for _ = 1, tonumber(limit) + MAX_FORGOTTEN do
    local id = redis.call('ZREVRANGE', index, start, start)[1]
    if not id or #found == tonumber(limit) then
      break
    end
    turn_to(id)
    local flat = snapshot()
    -- An id that has expired may be somebody else's since.
    if #flat == 0 or (owner and owner ~= '' and get('owner') ~= owner) then
      redis.call('ZREM', index, id)
    else
      found[#found + 1] = owner and as_json(flat) or flat
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
    commit()
  else
    give_up('cancelled', '', finished_ttl_s)
  end
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

-- The next job for a queue worker: first one whose worker died, then the oldest that waits.
function change.claim(token, lease_ms, driver, finished_ttl_s)
  local function take(id)
    redis.call('ZADD', claimed, string.format('%.3f', clock_ms()), id)
    change.acquire(token, lease_ms, driver, '')
    return { id, get('redo') }
  end
  for _, id in ipairs(redis.call('ZRANGE', claimed, 0, -1)) do
    turn_to(id)
    local status = get('status')
    if status == '' or FINAL[status] then
      redis.call('ZREM', claimed, id)
    elseif redis.call('EXISTS', lease) == 0 and get('cancelRequested') ~= '' then
      give_up('cancelled', '', finished_ttl_s)
    elseif redis.call('EXISTS', lease) == 0 then
      if redis.call('HINCRBY', job, 'losses', 1) < MAX_LOSSES then
        return take(id)
      end
      local reason = 'its worker died ' .. MAX_LOSSES .. ' times while it ran; see the logs, then retry'
      give_up('failed', reason, finished_ttl_s)
    end
  end
  while true do
    local id = redis.call('ZRANGE', queue, 0, 0)[1]
    if not id then
      return {}
    end
    redis.call('ZREM', queue, id)
    turn_to(id)
    if get('status') == 'queued' and redis.call('EXISTS', lease) == 0 then
      return take(id)
    end
  end
end

-- A queue worker that is asked to end leaves its job to the next one, before all that wait.
function change.give_back(token, finished_ttl_s)
  if redis.call('GET', lease) ~= token or FINAL[get('status')] then
    return 0
  end
  redis.call('DEL', lease)
  if get('cancelRequested') ~= '' then
    give_up('cancelled', '', finished_ttl_s)
    return 1
  end
  redis.call('HDEL', job, 'leaseToken')
  redis.call('HSET', job, 'status', 'queued')
  redis.call('ZREM', claimed, get('id'))
  enter_queue(0)
  return 1
end

function change.count()
  return { redis.call('ZCARD', queue), redis.call('ZCARD', claimed), redis.call('HGETALL', totals) }
end

function change.publish(token, lease_ms, finished_ttl_s, ...)
  local status = field('status', ...)
  if FINAL[status] and get('status') == status and get('leaseToken') == token then
    return { get('version'), 0 } -- the second run of a last publish
  end
  if redis.call('EXISTS', job) == 0 or not is_held_by(token) then
    return { false, get('driver') }
  end
  sum_up(as_pairs(redis.call('HGETALL', job)), as_pairs({ ... }))
  for _, name in ipairs(redis.call('HKEYS', job)) do
    if not KEPT[name] then
      redis.call('HDEL', job, name)
    end
  end
  redis.call('HSET', job, ...)
  if FINAL[status] then
    redis.call('HDEL', job, 'redo', 'losses')
    finish(finished_ttl_s)
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
