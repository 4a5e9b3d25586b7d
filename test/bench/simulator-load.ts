/** The load of the simulator's benchmark: streams over plain sockets, counted, never parsed. */
import { connect } from 'node:net'

export type Seen = {
  readonly open: number
  readonly broken: number
  readonly chunks: number
  /** Streams that say how many tokens have arrived, and the sum of what they said last. */
  readonly sampled: number
  readonly sampledTokens: number
  readonly cpuSeconds: number
}

const SAMPLE_EVERY = 100
/** How many requests may wait for their head at once: less than the listen backlog. */
const OPENING_MAX = 256
/** Longer than any run. */
const TOKENS = 20_000

const EVENT = Buffer.from('data: ')
const COMPLETION = Buffer.from('"completion_tokens":')

const requestText = (index: number, sampled: boolean): string => {
  const body = JSON.stringify({
    model: 'bench',
    messages: [{ role: 'user', content: `Stream ${index}: how does a penstock feed a turbine?` }],
    stream: true,
    max_tokens: TOKENS,
    ignore_eos: true,
    seed: index,
    ...(sampled ? { stream_options: { include_usage: true, continuous_usage_stats: true } } : {}),
  })
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\n'
  const type = 'content-type: application/json\r\n'
  return `${head}${type}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}

const countOf = (bytes: Buffer, what: Buffer): number => {
  let count = 0
  for (let at = bytes.indexOf(what); at >= 0; at = bytes.indexOf(what, at + what.length)) count += 1
  return count
}

const lastNumber = (bytes: Buffer): number | null => {
  const at = bytes.lastIndexOf(COMPLETION)
  if (at < 0) return null
  const from = at + COMPLETION.length
  const digits = /^\d+/.exec(bytes.toString('latin1', from, from + 12))
  return digits === null ? null : Number(digits[0])
}

/** Opens all streams, says so to the parent, then answers each message with what it has seen. */
export const holdStreams = async (port: number, streams: number): Promise<void> => {
  const told: number[] = []
  const seen = { open: 0, broken: 0, chunks: 0 }
  // One buffer for all: what arrives is looked at before the next read.
  const shared = Buffer.allocUnsafe(65_536)
  const open = (index: number): Promise<void> =>
    new Promise((resolve) => {
      const sample = index % SAMPLE_EVERY === 0 ? told.push(0) - 1 : -1
      let first = true
      const arrived = (count: number): boolean => {
        const bytes = shared.subarray(0, count)
        seen.chunks += countOf(bytes, EVENT)
        const number = sample < 0 ? null : lastNumber(bytes)
        if (number !== null) told[sample] = number
        if (!first) return true
        first = false
        if (!bytes.toString('latin1', 0, 12).endsWith(' 200')) seen.broken += 1
        seen.open += 1
        resolve()
        return true
      }
      const socket = connect({
        port,
        host: '127.0.0.1',
        onread: { buffer: shared, callback: arrived },
      })
      const lost = (): void => {
        seen.broken += 1
        resolve()
      }
      socket.on('error', lost).on('end', lost)
      socket.write(requestText(index, sample >= 0))
    })
  let next = 0
  const lane = async (): Promise<void> => {
    for (let index = next++; index < streams; index = next++) await open(index)
  }
  await Promise.all(Array.from({ length: OPENING_MAX }, lane))
  process.on('message', () => {
    const { user, system } = process.cpuUsage()
    const sampledTokens = told.reduce((sum, tokens) => sum + tokens, 0)
    const cpuSeconds = (user + system) / 1e6
    process.send?.({ ...seen, sampled: told.length, sampledTokens, cpuSeconds })
  })
  process.on('disconnect', () => process.exit(0))
  process.send?.('open')
}
