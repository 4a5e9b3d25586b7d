/** Faults of single requests: what a client sees of each, on both engines, streamed and whole. */
import { connect } from 'node:net'
import { afterAll, describe, expect, test } from 'vitest'
import {
  cleanUp,
  events,
  freePort,
  isReady,
  post,
  rehearsal,
  Simulated,
  stopAll,
  until,
} from './support.ts'

afterAll(async () => {
  await stopAll()
  cleanUp()
})

const started = async (engine: 'vllm' | 'sglang', faults: readonly object[], speed = 100) => {
  const port = await freePort()
  const line =
    engine === 'vllm'
      ? 'serve Qwen/QwQ-32B --served-model-name qwq-32b --max-model-len 8192 ' +
        `--host 127.0.0.1 --port ${port}`
      : '-m sglang.launch_server --model-path Qwen/QwQ-32B --served-model-name qwq-32b ' +
        `--host 127.0.0.1 --port ${port}`
  const one = new Simulated(
    engine === 'vllm' ? 'vllm' : 'python3',
    line.split(' '),
    rehearsal({ speed }),
    { PENSTOCK_FAULTS: JSON.stringify(faults) },
  )
  const url = `http://127.0.0.1:${port}`
  await until(isReady(url), 'the engine', () => one.output)
  return { one, url }
}

const ask = (more: object = {}) => ({
  model: 'qwq-32b',
  messages: [{ role: 'user', content: 'Why is the sky blue?' }],
  max_tokens: 60,
  ignore_eos: true,
  ...more,
})

type Got = { status: number; text: string; bytes: number; error: string | null }

/** Everything that arrives, and the name of what broke the connection. */
const fetched = async (url: string, more: object = {}): Promise<Got> => {
  const got: Got = { status: 0, text: '', bytes: 0, error: null }
  const decoder = new TextDecoder()
  try {
    const response = await post(url, '/v1/chat/completions', ask(more))
    got.status = response.status
    for await (const chunk of response.body ?? []) {
      got.bytes += chunk.length
      got.text += decoder.decode(chunk, { stream: true })
    }
  } catch (error) {
    const cause = error instanceof Error ? error.cause : null
    got.error = cause instanceof Error && 'code' in cause ? String(cause.code) : String(error)
  }
  return got
}

/** The bytes as they are on the wire: fetch throws away what came just before a reset. */
const overTcp = (url: string, more: object): Promise<{ text: string; error: string | null }> =>
  new Promise((resolve) => {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    const got: { text: string; error: string | null } = { text: '', error: null }
    const body = JSON.stringify(ask(more))
    socket.setEncoding('utf8')
    socket.on('data', (text) => {
      got.text += text
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      got.error = error.code ?? error.message
    })
    socket.once('close', () => resolve(got))
    const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n`
    const type = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`
    socket.write(`${head}${type}\r\n\r\n${body}`)
  })

const contents = (text: string): readonly string[] =>
  text.split('\n\n').flatMap((event) => {
    const found = /"content":"((?:[^"\\]|\\.)*)"/.exec(event)?.[1] ?? ''
    return found === '' ? [] : [found]
  })

const STREAM = { stream: true }

describe.each(['vllm', 'sglang'] as const)('%s', (engine) => {
  test('cut: a reset after so many tokens', async () => {
    const { url } = await started(engine, [{ kind: 'cut', afterTokens: 7 }])
    const streamed = await overTcp(url, STREAM)
    expect(streamed.text).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(streamed.error).toBe('ECONNRESET')
    // Chunked, without the empty chunk that would end it; every event so far is whole.
    expect(streamed.text.endsWith('\n\n\r\n')).toBe(true)
    expect(contents(streamed.text)).toHaveLength(7)
    const whole = await fetched(url)
    expect(whole).toMatchObject({ status: 0, bytes: 0, error: 'ECONNRESET' })
  })

  test('half-event: the bytes end within an event', async () => {
    const { url } = await started(engine, [{ kind: 'half-event', afterTokens: 5 }])
    const streamed = await fetched(url, STREAM)
    expect(streamed).toMatchObject({ status: 200, error: null })
    expect(streamed.text.endsWith('\n')).toBe(false)
    const last = streamed.text.slice(streamed.text.lastIndexOf('\n\n') + 2)
    expect(last).toMatch(/^data: \{/)
    expect(() => JSON.parse(last.slice(6))).toThrow(SyntaxError)
    expect(contents(streamed.text).length).toBeGreaterThan(0)
    const whole = await fetched(url)
    expect(whole.status).toBe(200)
    // undici: the body is shorter than its content-length.
    expect(whole.error).toBe('UND_ERR_SOCKET')
    expect(() => JSON.parse(whole.text)).toThrow(SyntaxError)
  })

  test('truncate: a well-formed end without a finish', async () => {
    const { url } = await started(engine, [{ kind: 'truncate', afterTokens: 5 }])
    const streamed = await fetched(url, STREAM)
    expect(streamed).toMatchObject({ status: 200, error: null })
    const all = events(streamed.text)
    expect(all.map((event) => JSON.parse(event)).length).toBeGreaterThan(0)
    expect(streamed.text).not.toMatch(/"finish_reason":\s*"/)
    expect(streamed.text).not.toContain('[DONE]')
    const whole = await fetched(url)
    expect(whole).toMatchObject({ status: 200, error: null })
    expect(whole.bytes).toBeGreaterThan(0)
    expect(() => JSON.parse(whole.text)).toThrow(SyntaxError)
  })

  test.each([
    ['/v1/responses', { input: 'Why is the sky blue?', max_output_tokens: 60 }],
    ['/v1/messages', { messages: ask().messages, max_tokens: 60 }],
    ['/v1/completions', { prompt: 'Why is the sky blue?', max_tokens: 60, ignore_eos: true }],
  ])('%s suffers the same', async (path, body) => {
    const halves = [{ kind: 'half-event', afterTokens: 5, share: 0.5 }]
    const { url } = await started(engine, halves)
    const read = async () => {
      const response = await post(url, path, { model: 'qwq-32b', stream: true, ...body })
      return { status: response.status, text: await response.text() }
    }
    const [good, bad] = [await read(), await read()]
    expect(good).toMatchObject({ status: 200, text: expect.stringMatching(/\n\n$/) })
    expect(bad).toMatchObject({ status: 200, text: expect.not.stringMatching(/\n\n$/) })
    expect(bad.text.length).toBeLessThan(good.text.length)
  })

  test('an answer shorter than the fault waits for is broken before its last token', async () => {
    const { url } = await started(engine, [{ kind: 'truncate', afterTokens: 500 }])
    const streamed = await fetched(url, { ...STREAM, max_tokens: 4 })
    expect(streamed.error).toBe(null)
    expect(streamed.text).not.toMatch(/"finish_reason":\s*"/)
  })

  test('garble: other text, as many tokens', async () => {
    const { url } = await started(engine, [{ kind: 'garble', share: 0.5 }])
    const [good, bad] = [await fetched(url), await fetched(url)].map(({ text }) => JSON.parse(text))
    expect(bad.usage.completion_tokens).toBe(good.usage.completion_tokens)
    expect(bad.choices[0].finish_reason).toBe(good.choices[0].finish_reason)
    expect(good.choices[0].message.content).toMatch(/main point/)
    expect(bad.choices[0].message.content).not.toMatch(/main point/)
    await fetched(url, STREAM)
    const streamed = await fetched(url, STREAM)
    expect(contents(streamed.text).join('')).not.toMatch(/main point/)
    expect(streamed.text).toContain('[DONE]')
  })

  test('slow-first-byte: nothing, the head neither, until the delay is over', async () => {
    const delayMs = 4000
    const { url } = await started(engine, [{ kind: 'slow-first-byte', delayMs, share: 0.5 }])
    for (const more of [STREAM, {}]) {
      // Every other one is struck. How late it is compared with one that is not, the machine's
      // load decides too; faults-day.test.ts sees that on a virtual clock.
      const [, slow] = [await timed(url, more), await timed(url, more)]
      expect(slow.headMs).toBeGreaterThanOrEqual(delayMs / 100)
      expect(slow.text.length).toBeGreaterThan(100)
      if (more === STREAM) expect(slow.text).toContain('[DONE]')
      else expect(JSON.parse(slow.text).choices).toHaveLength(1)
    }
  })

  test('error-500 and error-429 in the shape of the engine, for a share', async () => {
    for (const status of [500, 429]) {
      const { url, one } = await started(engine, [{ kind: `error-${status}`, share: 0.25 }])
      const seen: number[] = []
      for (let index = 0; index < 8; index += 1) {
        const got = await fetched(url, index % 2 === 0 ? {} : STREAM)
        seen.push(got.status)
        if (got.status === 200) continue
        const body = JSON.parse(got.text)
        const error = engine === 'vllm' ? body.error : body
        expect(error).toMatchObject({ code: status })
        expect(error.type).toBe(status === 500 ? 'InternalServerError' : 'Too Many Requests')
        expect(error.message.length).toBeGreaterThan(5)
      }
      expect(seen.filter((code) => code === status)).toHaveLength(2)
      expect(seen.filter((code) => code === 200)).toHaveLength(6)
      one.kill()
    }
  })
})

const timed = async (url: string, more: object) => {
  const began = performance.now()
  const response = await post(url, '/v1/chat/completions', ask(more))
  const headMs = performance.now() - began
  return { headMs, text: await response.text() }
}
