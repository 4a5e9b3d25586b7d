/** A console on a free loopback port over a FakeAdmin, and readers of what it streams. */
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { type Console, type ConsoleOptions, startConsole } from '../../src/console/server.ts'
import { ADMIN_KEY, FakeAdmin } from './admin.ts'

export type TestConsole = {
  readonly admin: FakeAdmin
  readonly console: Console
  readonly base: string
  /** What was logged as an error: a test that expects none says so. */
  readonly errors: string[]
}

export const testConsole = async (changes: Partial<ConsoleOptions> = {}): Promise<TestConsole> => {
  const admin = new FakeAdmin(1_790_000_000_000)
  const errors: string[] = []
  const quiet = (): void => undefined
  const console = await startConsole({
    host: '127.0.0.1',
    port: 0,
    admin,
    assets: 'no-such-directory',
    log: { info: quiet, warn: quiet, error: (_fields, message) => errors.push(message) },
    ...changes,
  })
  return { admin, console, base: `http://127.0.0.1:${console.port}`, errors }
}

export const asAdmin = { authorization: `Bearer ${ADMIN_KEY}` } as const

export type Answer = { readonly status: number; readonly headers: Headers; readonly body: string }

/** One request with exactly these headers: fetch would not let a test set Host or Origin. */
export const ask = (
  base: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { method = 'GET', headers = {}, body } = options
    const sent = httpRequest(`${base}${path}`, { method, headers, agent: false }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () =>
        resolve({
          status: answer.statusCode ?? 0,
          headers: headersOf(answer),
          body: Buffer.concat(chunks).toString('utf8'),
        }),
      )
      answer.on('error', reject)
    })
    sent.on('error', reject)
    sent.end(body)
  })

const headersOf = (answer: IncomingMessage): Headers => {
  const headers = new Headers()
  for (const [name, value] of Object.entries(answer.headers)) {
    for (const one of [value ?? []].flat()) headers.append(name, one)
  }
  return headers
}

export type ReadEvent = { readonly event: string; readonly data: unknown }

export type EventReader = {
  readonly status: number
  readonly events: ReadEvent[]
  readonly raw: () => string
  pause(): void
  resume(): void
  leave(): void
  /** Resolves with the first event for which `accept` is true, past or future. */
  until(accept: (event: ReadEvent) => boolean): Promise<ReadEvent>
  readonly ended: Promise<void>
}

const parse = (block: string): ReadEvent | null => {
  const event = /^event: (.*)$/m.exec(block)?.[1]
  const data = /^data: (.*)$/m.exec(block)?.[1]
  return event === undefined || data === undefined ? null : { event, data: JSON.parse(data) }
}

/** Opens an event stream and collects its events; the test's own time-out bounds each wait. */
export const readEvents = (
  base: string,
  path: string,
  options: { method?: string; body?: string; headers?: Record<string, string> } = {},
): Promise<EventReader> =>
  new Promise((resolve, reject) => {
    const { method = 'GET', headers = asAdmin, body } = options
    const sent = httpRequest(`${base}${path}`, { method, headers, agent: false }, (answer) =>
      resolve(collect(answer, () => sent.destroy())),
    )
    sent.on('error', reject)
    sent.end(body)
  })

const collect = (answer: IncomingMessage, leave: () => void): EventReader => {
  const events: ReadEvent[] = []
  const listeners = new Set<(event: ReadEvent) => void>()
  let text = ''
  let rest = ''
  answer.setEncoding('utf8')
  answer.on('data', (chunk: string) => {
    text += chunk
    const blocks = (rest + chunk).split('\n\n')
    rest = blocks.pop() ?? ''
    for (const block of blocks) {
      const event = parse(block)
      if (event === null) continue
      events.push(event)
      for (const listener of listeners) listener(event)
    }
  })
  return {
    status: answer.statusCode ?? 0,
    events,
    raw: () => text,
    pause: () => answer.pause(),
    resume: () => answer.resume(),
    leave,
    until: (accept) =>
      new Promise((found) => {
        const past = events.find(accept)
        if (past !== undefined) found(past)
        else listeners.add((event) => accept(event) && found(event))
      }),
    ended: new Promise((done) => {
      answer.on('close', done)
      answer.on('error', () => done())
    }),
  }
}
