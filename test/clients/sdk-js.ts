/** The official JavaScript SDK, watched from outside: its fetch and its sleep. */
import OpenAI from 'openai'
import { vi } from 'vitest'
import { z } from 'zod'
import type { Answered, Call, Outcome, Sdk } from './sdk.ts'

const MESSAGES = [{ role: 'user' as const, content: 'hello' }]
/** Where the SDK sleeps between tries; nothing else of it calls this. */
const SLEEP = /openai[/\\]internal[/\\]utils[/\\]sleep/

type Done = (...values: readonly unknown[]) => void
type Notes = {
  attempts: number
  readonly answers: Answered[]
  readonly waitsMs: number[]
  text: string
}

export const startJs = (): Sdk => {
  const books = { notes: fresh(), sleeps: false }
  const { setTimeout: timer } = globalThis
  // The SDK offers no hook for its sleep: what it asks for is noted, and cut short.
  vi.stubGlobal('setTimeout', (done: Done, ms = 0, ...rest: readonly unknown[]) => {
    const call = rest.length === 0 ? done : () => done(...rest)
    if (!SLEEP.test(new Error('where').stack ?? '')) return timer(call, ms)
    books.notes.waitsMs.push(ms)
    return timer(call, books.sleeps ? ms : 1)
  })
  return {
    name: 'js',
    call: async (base, call, signal) => {
      books.notes = fresh()
      books.sleeps = call.sleeps === true
      const { notes } = books
      const client = clientFor(base, call, notes)
      try {
        notes.text = await run(client, call, { notes, signal })
        return { ...NOTHING, ...notes }
      } catch (error) {
        return { ...raised(error), ...notes }
      }
    },
    close: async () => {
      vi.unstubAllGlobals()
    },
  }
}

const fresh = (): Notes => ({ attempts: 0, answers: [], waitsMs: [], text: '' })

const clientFor = (base: string, { key, timeoutMs, headers }: Call, notes: Notes): OpenAI =>
  new OpenAI({
    baseURL: base,
    apiKey: key ?? 'none',
    defaultHeaders: key === null ? { ...headers, authorization: null } : headers,
    ...(timeoutMs === undefined ? {} : { timeout: timeoutMs }),
    fetch: async (url, init) => {
      notes.attempts += 1
      const response = await fetch(url, init)
      notes.answers.push({
        status: response.status,
        retryAfter: response.headers.get('retry-after'),
        retryAfterMs: response.headers.get('retry-after-ms'),
        shouldRetry: response.headers.get('x-should-retry'),
      })
      return response
    },
  })

type Running = { readonly notes: Notes; readonly signal: AbortSignal | undefined }

const run = async (client: OpenAI, call: Call, running: Running): Promise<string> => {
  const { model, path = '', raw } = call
  switch (call.do) {
    case 'chat': {
      const { signal } = running
      const answer = await client.chat.completions.create({ model, messages: MESSAGES }, { signal })
      return answer.choices[0]?.message.content ?? ''
    }
    case 'stream':
      return streamed(client, call, running)
    case 'respond':
      return (await client.responses.create({ model, input: 'hello' })).output_text
    case 'response stream':
      return responded(client, model, running)
    case 'model':
      return (await client.models.retrieve(model)).id
    case 'models':
      return (await client.models.list()).data.map(({ id }) => id).join(' ')
    case 'get':
      await client.get(path)
      return ''
    case 'post':
      await client.post(path, { body: raw, headers: { 'content-type': 'application/json' } })
      return ''
  }
}

const streamed = async (client: OpenAI, call: Call, { notes }: Running): Promise<string> => {
  const ask = { model: call.model, messages: MESSAGES, stream: true as const }
  const stream = await client.chat.completions.create(ask)
  let pieces = 0
  for await (const piece of stream) {
    notes.text += piece.choices[0]?.delta.content ?? ''
    pieces += 1
    if (pieces === call.stopAfter) stream.controller.abort()
  }
  return notes.text
}

const responded = async (client: OpenAI, model: string, { notes }: Running): Promise<string> => {
  const stream = await client.responses.create({ model, input: 'hello', stream: true })
  for await (const event of stream) {
    if (event.type === 'response.output_text.delta') notes.text += event.delta
  }
  return notes.text
}

type Raised = Omit<Outcome, keyof Notes>

const NOTHING: Raised = {
  raised: null,
  status: null,
  type: null,
  code: null,
  param: null,
  requestId: null,
  message: '',
}

const Told = z.object({ message: z.string() })

const raised = (error: unknown): Raised => {
  if (!(error instanceof Error)) throw error
  const { message } = error
  const named = { ...NOTHING, raised: error.constructor.name, message }
  if (!(error instanceof OpenAI.APIError)) return named
  const { status, type, code, param, requestID } = error
  const body = Told.safeParse(error.error)
  return {
    ...named,
    message: body.success ? body.data.message : message,
    status: status ?? null,
    type: type ?? null,
    code: code ?? null,
    param: param ?? null,
    requestId: requestID ?? null,
  }
}
