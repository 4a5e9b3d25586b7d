/**
 * The limiter inside Redis: the decision of core/gcra.ts over several limits at once, all or none,
 * by the server's clock. Loaded as a function library, which runs as one step: nothing comes
 * between the look and the charge. Needs Redis 7 (or Valkey).
 *
 * Times are whole microseconds since the epoch: nanoseconds do not fit the doubles of Lua. A charge
 * is rounded up and a refund down, so that rounding never lets more through.
 *
 * Keys, all in one slot of a cluster by their tag:
 *   {penstock}:b:HASH  a bucket: `TAT CLEAR`, gone when nothing is owed. CLEAR is when it last owed
 *                      nothing: what was charged before has drained and is not given back.
 *   {penstock}:p:HASH  places (requests at a time): members with the time at which they end unless
 *                      they are renewed, so that those of a crashed gateway end by themselves.
 *   {penstock}:r:ID    a reservation: `UNITS AT UNITS AT …` in the order of its buckets, or `done`.
 *                      It makes a settlement that is sent twice count once.
 *   {penstock}:o:HASH  what each gateway says that a bucket owes, after Redis was away.
 *   {penstock}:g       gateways, by when they were last heard of.
 */
import { createHash } from 'node:crypto'

/** A reservation whose gateway died is kept for this long; a longer request renews its own. */
const RECORD_MS = 3_600_000
/** How long a settlement may be repeated; redis-limits.ts gives up before. */
const DONE_MS = 120_000

/** Gateways that come back within this belong to one outage. */
const OWED_MS = 30_000

const SOURCE = `
-- Longer than any window times any burst that makes sense; keeps sums exact.
local WEIGHT_MAX = 1e14

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function whole(number)
  return string.format('%.0f', number)
end

local function load_bucket(key)
  local text = redis.call('GET', key)
  if not text then return 0, 0 end
  local tat, clear = string.match(text, '^(%d+) (%d+)$')
  return tonumber(tat), tonumber(clear)
end

local function save_bucket(key, tat, clear, now)
  if tat <= now then
    redis.call('DEL', key)
  else
    local until_ms = whole(math.ceil(tat / 1000) + 1)
    redis.call('SET', key, whole(tat) .. ' ' .. whole(clear), 'PXAT', until_ms)
  end
end

local function weigh(rate, units)
  return math.min(WEIGHT_MAX, math.ceil(units * rate.window / rate.amount))
end

local function wait_for(tat, rate, units, now)
  local owed = math.max(0, tat - now)
  if units == 0 or owed == 0 then return 0 end
  local over = owed + weigh(rate, units) - weigh(rate, rate.burst)
  if over <= 0 then return 0 end
  return math.min(over, owed)
end

-- What is left, and microseconds until nothing is owed.
local function level(tat, rate, now)
  local owed = math.max(0, tat - now)
  local free = weigh(rate, rate.burst) - owed
  return math.max(0, math.floor(free * rate.amount / rate.window)), owed
end

local function charge(key, rate, units, now)
  local tat, clear = load_bucket(key)
  if tat <= now then tat, clear = now, now end
  save_bucket(key, tat + weigh(rate, units), clear, now)
end

-- What was owed by Redis's own memory after an outage, what gateways say, and since when.
local function load_book(book)
  local base, sum, since = 0, 0, nil
  local entries = redis.call('HGETALL', book)
  for at = 1, #entries, 2 do
    local value = tonumber(entries[at + 1])
    if entries[at] == 'base' then base = value
    elseif entries[at] == 'since' then since = value
    else sum = sum + value end
  end
  return base, sum, since
end

local function refund(key, rate, units, at, now)
  local tat, clear = load_bucket(key)
  if tat <= now or at < clear then return end
  local weight = math.floor(units * rate.window / rate.amount)
  local book = string.gsub(key, ':b:', ':o:', 1)
  local base, sum, since = load_book(book)
  if since and at <= since then
    -- Charged before the outage: it was part of the memory that what gateways say stands above.
    local left = math.max(0, base - weight)
    redis.call('HSET', book, 'base', whole(left))
    weight = math.max(base, sum) - math.max(left, sum)
  end
  save_bucket(key, tat - weight, clear, now)
end

-- ARGV from \`at\`: amount, window in microseconds, burst, units of each bucket.
local function rates_of(args, at, count)
  local rates = {}
  for i = 1, count do
    local from = at + (i - 1) * 4
    rates[i] = {
      amount = tonumber(args[from]),
      window = tonumber(args[from + 1]),
      burst = tonumber(args[from + 2]),
      units = tonumber(args[from + 3]),
    }
  end
  return rates
end

-- KEYS: reservation, buckets, places. ARGV: buckets, lease in ms, member, rates, amounts of places.
-- Answers 1 and what is left, or 0, which bucket waits longest (places count on after the buckets),
-- how long, and what is left.
local function take(keys, args)
  local now = now_us()
  local now_ms = math.floor(now / 1000)
  local count = tonumber(args[1])
  local lease = tonumber(args[2])
  local rates = rates_of(args, 4, count)
  local answer = { 1, 0, 0 }
  -- Given up before it came here.
  if redis.call('GET', keys[1]) == 'done' then return { 0, 1, 0 } end
  local tats, clears = {}, {}
  for i = 1, count do
    tats[i], clears[i] = load_bucket(keys[1 + i])
    local wait = wait_for(tats[i], rates[i], rates[i].units, now)
    if wait > 0 and (answer[1] == 1 or wait > answer[3]) then answer = { 0, i, wait } end
  end
  for i = count + 2, #keys do
    redis.call('ZREMRANGEBYSCORE', keys[i], '-inf', now_ms)
    local amount = tonumber(args[3 + count * 4 + i - count - 1])
    if redis.call('ZCARD', keys[i]) >= amount then answer = { 0, i - 1, 0 } end
  end
  local taken = answer[1] == 1
  local record = {}
  for i = 1, count do
    local rate = rates[i]
    if taken and rate.units > 0 then
      if tats[i] <= now then tats[i], clears[i] = now, now end
      tats[i] = tats[i] + weigh(rate, rate.units)
      save_bucket(keys[1 + i], tats[i], clears[i], now)
    end
    record[#record + 1] = whole(rate.units) .. ' ' .. whole(now)
    local left, reset = level(tats[i], rate, now)
    answer[#answer + 1] = left
    answer[#answer + 1] = reset
  end
  if not taken then return answer end
  for i = count + 2, #keys do
    redis.call('ZADD', keys[i], now_ms + lease, args[3])
    redis.call('PEXPIRE', keys[i], lease)
  end
  redis.call('SET', keys[1], table.concat(record, ' '), 'PX', ${RECORD_MS})
  return answer
end

-- KEYS: as of take. ARGV: buckets, what to do (0: top up, 1: end, 2: restore what was forgotten),
-- member, rates (units: so many by now in all; -1: not known, what is charged stays).
-- Answers 1, 0 when it was settled before, or -1 when the reservation is not known.
local function bring(keys, args)
  local now = now_us()
  local count = tonumber(args[1])
  local mode = args[2]
  local rates = rates_of(args, 4, count)
  local text = redis.call('GET', keys[1])
  if text == 'done' then return 0 end
  local had = {}
  if text then
    for number in string.gmatch(text, '%d+') do had[#had + 1] = tonumber(number) end
  end
  local record = {}
  for i = 1, count do
    local rate = rates[i]
    local units, at = had[i * 2 - 1] or math.max(0, rate.units), had[i * 2] or now
    if rate.units > units then
      charge(keys[1 + i], rate, rate.units - units, now)
      units, at = rate.units, now
    elseif rate.units >= 0 and rate.units < units then
      refund(keys[1 + i], rate, units - rate.units, at, now)
      units = rate.units
    end
    record[#record + 1] = whole(units) .. ' ' .. whole(at)
  end
  if mode == '1' then
    for i = count + 2, #keys do redis.call('ZREM', keys[i], args[3]) end
    redis.call('SET', keys[1], 'done', 'PX', ${DONE_MS})
  elseif text or mode == '2' then
    redis.call('SET', keys[1], table.concat(record, ' '), 'PX', ${RECORD_MS})
  end
  return text and 1 or -1
end

-- KEYS: reservations, places. ARGV: reservations, lease in ms, member of each place.
local function renew(keys, args)
  local now_ms = math.floor(now_us() / 1000)
  local count = tonumber(args[1])
  local lease = tonumber(args[2])
  for i = 1, count do redis.call('PEXPIRE', keys[i], ${RECORD_MS}) end
  for i = count + 1, #keys do
    redis.call('ZADD', keys[i], now_ms + lease, args[2 + i - count])
    redis.call('PEXPIRE', keys[i], lease)
  end
  return 1
end

-- KEYS: bucket and book in turn. ARGV: gateway, then for each bucket the microseconds that it owes
-- by this gateway's own count. What gateways say adds up; what Redis still knows is not added.
local function owe(keys, args)
  local now = now_us()
  for i = 1, #args - 1 do
    local key, book = keys[i * 2 - 1], keys[i * 2]
    local tat, clear = load_bucket(key)
    redis.call('HSETNX', book, 'base', whole(math.max(0, tat - now)))
    redis.call('HSETNX', book, 'since', whole(now))
    redis.call('PEXPIRE', book, ${OWED_MS})
    local base, before = load_book(book)
    local said = tonumber(redis.call('HGET', book, args[1]) or 0)
    local now_said = math.max(said, math.min(WEIGHT_MAX, tonumber(args[i + 1])))
    redis.call('HSET', book, args[1], whole(now_said))
    local more = math.max(base, before - said + now_said) - math.max(base, before)
    if more > 0 then
      if tat <= now then tat, clear = now, now end
      save_bucket(key, tat + more, clear, now)
    end
  end
  return 1
end

-- KEYS: gateways. ARGV: this one, how long it counts in ms. Answers how many there are.
local function beat(keys, args)
  local now_ms = math.floor(now_us() / 1000)
  local alive = tonumber(args[2])
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', now_ms - alive)
  redis.call('ZADD', keys[1], now_ms, args[1])
  redis.call('PEXPIRE', keys[1], alive)
  return redis.call('ZCARD', keys[1])
end
`

const STEPS = ['take', 'bring', 'renew', 'owe', 'beat'] as const
export type RedisStep = (typeof STEPS)[number]

/** Named by what it says: gateways of two versions each have their own beside the other's. */
const LIBRARY = `penstock_${createHash('sha256').update(SOURCE).digest('hex').slice(0, 12)}`

export const functionName = (step: RedisStep): string => `${LIBRARY}_${step}`

/** For FUNCTION LOAD. */
export const librarySource = [
  `#!lua name=${LIBRARY}`,
  SOURCE,
  ...STEPS.map((step) => `redis.register_function('${functionName(step)}', ${step})`),
].join('\n')
