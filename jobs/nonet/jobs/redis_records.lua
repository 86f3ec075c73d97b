-- The jobs of one deployment: every call of the store is one run of this script with that of redis_calls.lua
-- behind it, so each takes effect whole. Here: what is kept, and how a job goes from one state to another.
--
-- KEYS[1]  the root of all keys. It holds the hash tag, so the keys lie in one slot of a cluster.
-- ARGV     verb, latest moment at which it may take effect, the caller's place, arguments of the verb
-- returns  status, the server's clock, what the verb gives
--
-- job:<id>                  hash    all of a job
-- state:<state>             zset    ids by number (the order of submits)
-- tenant:<tenant>:<state>   zset    ids of a tenant by number
-- queue:<lane>              zset    ids that wait, by number. The lane: the kind, and behind it what else they need
-- lanes                     hash    lane that ids wait in -> what their phase says of it, '' for nothing
-- live:<kind>:<subject>     zset    ids that wait or run, by number
-- keys:<tenant>             hash    idempotency key -> id
-- leases                    zset    ids that run, by the end of their leases
-- owners                    hash    owner -> id that it runs
-- place:<place>             set     ids that run at a place: a machine, or a container
-- done, endings             zset    ids that have ended, by number and by the order of their ends
-- due                       zset    ids whose webhook is to be sent, by when
-- webhooks:<state>          set     ids by the state of their webhook
-- heard                     zset    what somebody offers (kinds, and words of requirements.py, with blanks between), by until when
-- number, ending, layout, folder, seen   strings
--
-- Leases and times are on the server's clock, so the clocks of the machines do not matter.

local LAYOUT = 1
local ABSENCE = 3     -- seconds without any call after which nobody can have renewed a lease
local FARTHEST = 7200 -- no webhook is due later than this; one that is was written before the clock was set back
local BATCH = 500     -- jobs that one call forgets at most

local root, verb, latest, place = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local function key(...)
  return root .. ':' .. table.concat({...}, ':')
end

local function text(number)
  return string.format('%.6f', number)
end

local function read(id)
  local flat = redis.call('HGETALL', key('job', id))
  if #flat == 0 then return nil end
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job
end

local function show(id)
  return redis.call('HGETALL', key('job', id))
end

local function show_all(ids)
  local found = {}
  for _, id in ipairs(ids) do found[#found + 1] = show(id) end
  return found
end

-- Ids whose job is gone, as a server that evicts keys makes them, leave a list when they are in the way.
local function sweep(list)
  for _, id in ipairs(redis.call('ZRANGE', list, 0, -1)) do
    if redis.call('EXISTS', key('job', id)) == 0 then redis.call('ZREM', list, id) end
  end
  return redis.call('ZCARD', list)
end

local function owned(id, owner)
  local job = read(id)
  if job and job.state == 'running' and job.owner == owner then return job end
  return nil
end

-- When memory is full the server refuses a script's first write if that may take memory. What only changes jobs
-- that are there must go on then, so its first write is one that takes none.
local function go_on_without_memory()
  redis.call('DEL', key('nothing'))
end

local function note_call()
  local last = tonumber(redis.call('GET', key('seen')) or '0')
  if math.abs(now - last) > 0.25 then redis.call('SET', key('seen'), text(now)) end
  return last
end

local function lane_of(job)
  return job.needs and job.kind .. ' ' .. job.needs or job.kind
end

-- What a job that waits says of it.
local function put_phase(job)
  local note = redis.call('HGET', key('lanes'), lane_of(job))
  local phase = note and note ~= '' and note or (job.started and 'waiting to go on' or '')
  if job.phase == phase then return end
  redis.call('HSET', key('job', job.id), 'phase', phase)
  redis.call('HINCRBY', key('job', job.id), 'revision', 1)
end

local function enter_lane(job)
  redis.call('ZADD', key('queue', lane_of(job)), job.number, job.id)
  redis.call('HSETNX', key('lanes'), lane_of(job), '')
  put_phase(job)
end

local function leave_lane(lane, id)
  redis.call('ZREM', key('queue', lane), id)
  if redis.call('EXISTS', key('queue', lane)) == 0 then redis.call('HDEL', key('lanes'), lane) end
end

local function enter(job, state)
  redis.call('ZADD', key('state', state), job.number, job.id)
  redis.call('ZADD', key('tenant', job.tenant, state), job.number, job.id)
  redis.call('HSET', key('job', job.id), 'state', state)
  if state == 'queued' then enter_lane(job) end
end

local function leave(job)
  redis.call('ZREM', key('state', job.state), job.id)
  redis.call('ZREM', key('tenant', job.tenant, job.state), job.id)
  if job.state == 'queued' then
    leave_lane(lane_of(job), job.id)
    if job.needs then leave_lane(job.kind, job.id) end -- where an earlier release puts it
  end
  if job.state == 'running' then
    redis.call('ZREM', key('leases'), job.id)
    redis.call('SREM', key('place', job.place), job.id)
    redis.call('HDEL', key('owners'), job.owner)
    redis.call('HDEL', key('job', job.id), 'owner', 'worker', 'place', 'lease_seconds', 'grace', 'eta',
      'partial')
  end
end

-- The oldest job of a lane, or of all that wait. What does not belong there is put right on the way: ids whose job
-- is gone, and what processes of an earlier release have done, which know of kinds alone.
local function first_of(list, lane)
  while true do
    local id = redis.call('ZRANGE', list, 0, 0)[1]
    if not id then return nil end
    local job = read(id)
    local waits = job and job.state == 'queued'
    if waits and (not lane or lane_of(job) == lane) then return job end
    redis.call('ZREM', list, id)
    if waits then enter_lane(job) end
  end
end

-- Put all that wait into their lanes if some are not there, or others are.
local function mend_lanes()
  local waiting, lanes = 0, redis.call('HKEYS', key('lanes'))
  for _, lane in ipairs(lanes) do waiting = waiting + redis.call('ZCARD', key('queue', lane)) end
  if waiting == redis.call('ZCARD', key('state', 'queued')) then return end
  sweep(key('state', 'queued'))
  for _, lane in ipairs(lanes) do redis.call('DEL', key('queue', lane)) end
  redis.call('DEL', key('lanes'))
  for _, id in ipairs(redis.call('ZRANGE', key('state', 'queued'), 0, -1)) do enter_lane(read(id)) end
end

local function finish(job, state, result, failure)
  leave(job)
  enter(job, state)
  redis.call('ZREM', key('live', job.kind, job.subject), job.id)
  redis.call('ZADD', key('done'), job.number, job.id)
  local ending = redis.call('INCR', key('ending'))
  redis.call('ZADD', key('endings'), ending, job.id)
  local name = key('job', job.id)
  redis.call('HSET', name, 'phase', state, 'ended', text(now), 'ending', ending, 'cancelling', '0')
  redis.call('HINCRBY', name, 'revision', 1)
  if state == 'succeeded' then redis.call('HSET', name, 'progress', '1.0') end
  if result ~= '' then redis.call('HSET', name, 'result', result) end
  if failure ~= '' then redis.call('HSET', name, 'error', failure) end
  if job.webhook then redis.call('ZADD', key('due'), text(now), job.id) end
end

local function crashed(deaths, blame)
  local often = deaths > 1 and (deaths .. ' times, the last time') or 'once,'
  return cjson.encode({
    message = 'the process of the job ended ' .. often .. ' because ' .. blame .. '; it is not tried again',
    type = 'server_error', param = cjson.null, code = 'WORKER_CRASHED',
  })
end

local function give_back(job, blame, max_attempts, begun)
  local deaths, name = tonumber(job.deaths) + (blame ~= '' and 1 or 0), key('job', job.id)
  if job.cancelling == '1' then
    finish(job, 'cancelled', '', '')
  elseif blame ~= '' and deaths >= max_attempts then
    redis.call('HSET', name, 'deaths', deaths)
    finish(job, 'failed', '', crashed(deaths, blame))
  else
    leave(job)
    enter(job, 'queued')
    redis.call('HSET', name, 'deaths', deaths)
    redis.call('HINCRBY', name, 'revision', 1)
    if not begun then redis.call('HINCRBY', name, 'attempts', -1) end
  end
end

local function drop(id)
  local job = read(id)
  redis.call('ZREM', key('done'), id)
  redis.call('ZREM', key('endings'), id)
  redis.call('ZREM', key('due'), id)
  if not job then return end
  leave(job)
  if job.key then redis.call('HDEL', key('keys', job.tenant), job.key) end
  if job.webhook then redis.call('SREM', key('webhooks', job.webhook_state), id) end
  redis.call('DEL', key('job', id))
end
