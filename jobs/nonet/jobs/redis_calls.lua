-- The calls of the store, behind redis_records.lua: a verb for each, which gives a status and an answer.

local verbs = {}

-- Callers ---------------------------------------------------------------------------------------------------

function verbs.submit(id, kind, subject, tenant, spec, digest, idempotency, webhook, needs, most, most_own)
  if redis.call('EXISTS', key('job', id)) == 1 then return 'new', show(id) end -- the answer was lost on its way
  local known = idempotency ~= '' and redis.call('HGET', key('keys', tenant), idempotency)
  if known then
    local same = redis.call('HGET', key('job', known), 'digest') == digest
    return same and 'known' or 'reused', show(known)
  end
  local list, all = key('tenant', tenant, 'queued'), key('state', 'queued')
  local own, waiting = redis.call('ZCARD', list), redis.call('ZCARD', all)
  if own >= tonumber(most_own) then own = sweep(list) end
  if own >= tonumber(most_own) then return 'quota', tostring(own) end
  if waiting >= tonumber(most) then waiting = sweep(all) end
  if waiting >= tonumber(most) then return 'full', tostring(waiting) end
  redis.call('SET', key('layout'), LAYOUT)
  local job = {id = id, kind = kind, subject = subject, tenant = tenant, phase = ''}
  if needs ~= '' then job.needs = needs end
  job.number = redis.call('INCR', key('number'))
  redis.call('HSET', key('job', id), 'id', id, 'number', job.number, 'kind', kind, 'subject', subject,
    'tenant', tenant, 'spec', spec, 'digest', digest, 'phase', '', 'progress', '0.0', 'attempts', 0,
    'deaths', 0, 'cancelling', '0', 'created', text(now), 'spent', '0.0', 'revision', 1)
  if job.needs then redis.call('HSET', key('job', id), 'needs', needs) end
  if idempotency ~= '' then
    redis.call('HSET', key('job', id), 'key', idempotency)
    redis.call('HSET', key('keys', tenant), idempotency, id)
  end
  if webhook ~= '' then
    redis.call('HSET', key('job', id), 'webhook', webhook, 'webhook_state', 'waiting', 'webhook_attempts', 0)
    redis.call('SADD', key('webhooks', 'waiting'), id)
  end
  redis.call('ZADD', key('live', kind, subject), job.number, id)
  enter(job, 'queued')
  return 'new', show(id)
end

function verbs.get(id)
  return 'ok', show(id)
end

function verbs.page(number, limit, ...)
  -- The newest of each list, then the newest of those.
  limit = tonumber(limit)
  local found = {}
  for _, list in ipairs({...}) do
    local ids = redis.call('ZREVRANGEBYSCORE', root .. list, number, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
    for i = 1, #ids, 2 do found[#found + 1] = {tonumber(ids[i + 1]), ids[i]} end
  end
  table.sort(found, function(a, b) return a[1] > b[1] end)
  local jobs = {}
  for i = 1, math.min(limit, #found) do jobs[i] = show(found[i][2]) end
  return 'ok', jobs
end

function verbs.counts(list, ...)
  local found, command = {}, list == 'state' and 'ZCARD' or 'SCARD'
  for i, state in ipairs({...}) do found[i] = redis.call(command, key(list, state)) end
  return 'ok', found
end

function verbs.active(kind, subject)
  local first
  for _, id in ipairs(redis.call('ZRANGE', key('live', kind, subject), 0, -1)) do
    first = first or id
    if redis.call('HGET', key('job', id), 'state') == 'running' then return 'ok', show(id) end
  end
  return 'ok', first and show(first)
end

function verbs.cancel(id, tenant)
  local job = read(id)
  if not job or (tenant ~= '*' and job.tenant ~= tenant) then return 'missing' end
  go_on_without_memory()
  if job.state == 'queued' then
    finish(job, 'cancelled', '', '')
  elseif job.state == 'running' and job.cancelling ~= '1' then
    redis.call('HSET', key('job', id), 'cancelling', '1')
    redis.call('HINCRBY', key('job', id), 'revision', 1)
  end
  return 'ok', show(id)
end

-- Workers and those who start them --------------------------------------------------------------------------

local function covered(words, has)
  for word in words:gmatch('%S+') do
    if not has[word] then return false end
  end
  return true
end

-- The lanes of jobs that need no more than these words. A lane of a kind alone may hold jobs without being noted.
local function lanes_for(words)
  local has, lanes = {}, {}
  for _, word in ipairs(words) do
    has[word] = true
    lanes[#lanes + 1] = word
  end
  for _, lane in ipairs(redis.call('HKEYS', key('lanes'))) do
    if not has[lane] and covered(lane, has) then lanes[#lanes + 1] = lane end
  end
  return lanes
end

function verbs.claim(owner, lease, concurrency, any, ...)
  local mine = redis.call('HGET', key('owners'), owner)
  if mine then return 'ok', show(mine) end -- the answer was lost on its way
  if redis.call('SCARD', key('place', place)) >= tonumber(concurrency) then return 'ok' end
  local job
  if any == '1' then job = first_of(key('state', 'queued')) end
  for _, lane in ipairs(lanes_for({...})) do
    local first = first_of(key('queue', lane), lane)
    if first and (not job or tonumber(first.number) < tonumber(job.number)) then job = first end
  end
  if not job then return 'ok' end
  local oldest, name = job.id, key('job', job.id)
  leave(job)
  enter(job, 'running')
  redis.call('ZADD', key('leases'), text(now + tonumber(lease)), oldest)
  redis.call('SADD', key('place', place), oldest)
  redis.call('HSET', key('owners'), owner, oldest)
  redis.call('HSET', name, 'phase', 'starting', 'owner', owner, 'place', place, 'lease_seconds', lease)
  redis.call('HSETNX', name, 'started', text(now))
  redis.call('HINCRBY', name, 'attempts', 1)
  redis.call('HINCRBY', name, 'revision', 1)
  note_call()
  return 'ok', show(oldest)
end

function verbs.claimed(id, owner)
  return 'ok', owned(id, owner) and show(id)
end

function verbs.beat(id, owner, lease, worker, seconds, progress, phase, eta, partial)
  local job, name = owned(id, owner), key('job', id)
  if not job then return 'lost' end
  go_on_without_memory()
  note_call()
  -- The place with the process: whoever claimed the job may have started it somewhere else.
  if job.place ~= place then
    redis.call('SREM', key('place', job.place), id)
    redis.call('SADD', key('place', place), id)
  end
  redis.call('ZADD', key('leases'), text(now + tonumber(lease)), id)
  redis.call('HDEL', name, 'grace', 'eta')
  redis.call('HSET', name, 'worker', worker, 'place', place, 'lease_seconds', lease,
    'spent', text(tonumber(job.spent) + tonumber(seconds)), 'progress', progress, 'phase', phase)
  if eta ~= '' then redis.call('HSET', name, 'eta', eta) end
  if partial ~= '' then redis.call('HSET', name, 'partial', partial) end
  if job.progress ~= progress or job.phase ~= phase or partial ~= '' then redis.call('HINCRBY', name, 'revision', 1) end
  return job.cancelling == '1' and 'cancelled' or 'ok'
end

function verbs.finish(id, owner, state, result, failure)
  local job = owned(id, owner)
  if not job then return 'lost' end
  go_on_without_memory()
  finish(job, state, result, failure)
  return 'ok'
end

function verbs.give_back(id, owner, blame, max_attempts, begun)
  local job = owned(id, owner)
  if not job then return 'lost' end
  go_on_without_memory()
  give_back(job, blame, tonumber(max_attempts), begun == '1')
  return 'ok', show(id)
end

-- The running jobs whose leases are over, and those of processes that the caller can look for. If nobody called
-- for a while, the server was away or its clock was set forward: no worker could renew its lease, so it gets
-- the time to, once. A lease from before the clock was set back is cut to its length.
function verbs.overdue()
  go_on_without_memory()
  local absent, found = now - note_call() > ABSENCE, {}
  sweep(key('leases'))
  local running = redis.call('ZRANGE', key('leases'), 0, -1, 'WITHSCORES')
  for i = 1, #running, 2 do
    local id, over = running[i], tonumber(running[i + 1])
    local job = read(id)
    local length = tonumber(job.lease_seconds)
    if over > now + length + 1 or (over < now and absent and not job.grace) then
      redis.call('ZADD', key('leases'), text(now + length), id)
      redis.call('HSET', key('job', id), 'grace', '1')
    elseif over < now then
      found[#found + 1] = {id, job.owner, ''}
    elseif job.place == place and job.worker then
      found[#found + 1] = {id, job.owner, job.worker}
    end
  end
  return 'ok', found
end

function verbs.reap(max_attempts, ...)
  go_on_without_memory()
  local given, reaped = {...}, {}
  for i = 1, #given, 3 do
    local id, owner, worker = given[i], given[i + 1], given[i + 2]
    local job = owned(id, owner)
    local over = job and tonumber(redis.call('ZSCORE', key('leases'), id)) < now
    if job and (over or (worker ~= '' and job.worker == worker)) then
      give_back(job, 'it was lost', tonumber(max_attempts), true)
      reaped[#reaped + 1] = show(id)
    end
  end
  return 'ok', reaped
end

function verbs.forget(keep_seconds, keep_jobs)
  go_on_without_memory()
  local gone = {}
  local extra = math.min(redis.call('ZCARD', key('done')) - tonumber(keep_jobs), BATCH)
  if extra > 0 then
    for _, id in ipairs(redis.call('ZRANGE', key('done'), 0, extra - 1)) do
      drop(id)
      gone[#gone + 1] = id
    end
  end
  for _, id in ipairs(redis.call('ZRANGE', key('endings'), 0, BATCH - #gone)) do
    local ended = tonumber(redis.call('HGET', key('job', id), 'ended') or '0') -- 0: its job is gone
    if ended >= now - tonumber(keep_seconds) then break end
    drop(id)
    gone[#gone + 1] = id
  end
  return #gone < BATCH and 'ok' or 'more', gone
end

function verbs.now()
  return 'ok', text(now)
end

function verbs.unfinished()
  local ids = redis.call('ZRANGE', key('state', 'queued'), 0, -1)
  for _, id in ipairs(redis.call('ZRANGE', key('state', 'running'), 0, -1)) do ids[#ids + 1] = id end
  return 'ok', ids
end

function verbs.ending()
  return 'ok', redis.call('GET', key('ending'))
end

function verbs.ended(after, limit)
  local list = key('endings')
  return 'ok', show_all(redis.call('ZRANGEBYSCORE', list, '(' .. after, '+inf', 'LIMIT', 0, limit))
end

-- Who works where -------------------------------------------------------------------------------------------

function verbs.announce(seconds, ...)
  go_on_without_memory()
  local heard, till, words = key('heard'), text(now + tonumber(seconds)), {...}
  redis.call('ZREMRANGEBYSCORE', heard, '-inf', text(now))
  redis.call('ZADD', heard, till, table.concat(words, ' '))
  for _, word in ipairs(words) do -- kinds also alone, as processes of an earlier release read them
    if not word:find(':', 1, true) then redis.call('ZADD', heard, till, word) end
  end
  return 'ok'
end

function verbs.is_available(kind)
  for _, words in ipairs(redis.call('ZRANGEBYSCORE', key('heard'), '(' .. text(now), '+inf')) do
    if (' ' .. words .. ' '):find(' ' .. kind .. ' ', 1, true) then return 'ok', '1' end
  end
  return 'ok'
end

function verbs.demand()
  go_on_without_memory()
  mend_lanes()
  local queues, notes = {}, redis.call('HGETALL', key('lanes'))
  for i = 1, #notes, 2 do
    local waiting = redis.call('ZCARD', key('queue', notes[i]))
    if waiting > 0 then queues[#queues + 1] = {notes[i], waiting, notes[i + 1]} end
  end
  return 'ok', {queues, redis.call('ZRANGEBYSCORE', key('heard'), '(' .. text(now), '+inf')}
end

function verbs.note(lane, note)
  local before = redis.call('HGET', key('lanes'), lane)
  if not before or before == note then return 'ok' end
  go_on_without_memory()
  redis.call('HSET', key('lanes'), lane, note)
  for _, id in ipairs(redis.call('ZRANGE', key('queue', lane), 0, -1)) do
    local job = read(id)
    if job and job.state == 'queued' then put_phase(job) end
  end
  return 'ok'
end

function verbs.agree_on_folder(folder)
  redis.call('SETNX', key('folder'), folder)
  return 'ok', redis.call('GET', key('folder'))
end

-- Webhooks --------------------------------------------------------------------------------------------------

function verbs.claim_webhook(lease)
  go_on_without_memory()
  local due = key('due')
  local first = redis.call('ZRANGEBYSCORE', due, '-inf', text(now), 'LIMIT', 0, 1)[1]
  first = first or redis.call('ZRANGEBYSCORE', due, text(now + FARTHEST), '+inf', 'LIMIT', 0, 1)[1]
  if not first then return 'ok' end
  redis.call('HINCRBY', key('job', first), 'webhook_attempts', 1)
  redis.call('ZADD', due, text(now + tonumber(lease)), first)
  return 'ok', show(first)
end

function verbs.settle_webhook(id, attempt, state, failure, again_in)
  local job, name = read(id), key('job', id)
  if not job or job.webhook_state ~= 'waiting' or job.webhook_attempts ~= attempt then return 'lost' end
  go_on_without_memory()
  redis.call('SREM', key('webhooks', 'waiting'), id)
  redis.call('SADD', key('webhooks', state), id)
  redis.call('HSET', name, 'webhook_state', state)
  redis.call('HDEL', name, 'webhook_error')
  if failure ~= '' then redis.call('HSET', name, 'webhook_error', failure) end
  redis.call('ZREM', key('due'), id)
  if state == 'waiting' then redis.call('ZADD', key('due'), text(now + tonumber(again_in)), id) end
  return 'ok'
end

if latest ~= '' and now > tonumber(latest) then return {'late', text(now), false} end
if tonumber(redis.call('GET', key('layout')) or '0') > LAYOUT then return {'later release', text(now), false} end
local status, given = verbs[verb](unpack(ARGV, 4))
return {status, text(now), given or false}
