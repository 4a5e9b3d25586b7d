/** Callers that remember which of their requests ended, and when: the other side of our books. */
import { Agent, request } from 'undici'

type Ended = {
  readonly id: string
  readonly status: number
  /** `performance.now()` when the last byte had come. */
  readonly atMs: number
  readonly promptTokens: number
  readonly completionTokens: number
}

export type LoadOptions = {
  readonly base: string
  readonly key: string
  readonly callers: number
  readonly name: string
  readonly maxTokens: number
  /** Share of streams that are left after a few events, 0..1. */
  readonly leaving?: number
}

export type Load = {
  /** Answers that came whole, refusals too. */
  readonly ended: readonly Ended[]
  /** How often a caller left its stream. */
  left(): number
  /** No new requests; resolves when the running ones have ended, in whatever way. */
  stop(): Promise<void>
}

const usageIn = (text: string): { prompt: number; completion: number } => {
  const [last] = [...text.matchAll(/"usage":\s*\{[^{}]*/g)].slice(-1)
  const figure = (name: string): number =>
    Number(new RegExp(`"${name}":\\s*(\\d+)`).exec(last?.[0] ?? '')?.[1] ?? 0)
  return { prompt: figure('prompt_tokens'), completion: figure('completion_tokens') }
}

/** Each caller asks again as soon as it was answered; every other request is a stream. */
export const startLoad = (options: LoadOptions): Load => {
  const agent = new Agent({ connections: options.callers, pipelining: 1 })
  const ended: Ended[] = []
  let stopped = false
  let serial = 0
  let left = 0
  const one = async (): Promise<void> => {
    serial += 1
    const id = `${options.name}-${serial}`
    const stream = serial % 2 === 0
    const leaves = stream && Math.random() < (options.leaving ?? 0)
    const answer = await request(`${options.base}/chat/completions`, {
      dispatcher: agent,
      method: 'POST',
      headers: {
        authorization: `Bearer ${options.key}`,
        'content-type': 'application/json',
        'x-request-id': id,
      },
      body: JSON.stringify({
        model: 'qwq-32b',
        max_tokens: options.maxTokens,
        messages: [{ role: 'user', content: `Count from ${serial} on, please, and on.` }],
        ...(stream ? { stream, stream_options: { include_usage: true } } : {}),
      }),
    })
    let text = ''
    for await (const chunk of answer.body) {
      text += String(chunk)
      if (leaves && text.length > 1500) {
        left += 1
        return
      }
    }
    const { prompt, completion } = usageIn(text)
    const { statusCode: status } = answer
    const atMs = performance.now()
    ended.push({ id, status, atMs, promptTokens: prompt, completionTokens: completion })
  }
  const caller = async (): Promise<void> => {
    while (!stopped) {
      // A server that was killed, or that has gone, answers nobody: that is no answer that ended.
      await one().catch(() => new Promise((resolve) => setTimeout(resolve, 20)))
    }
  }
  const callers = Array.from({ length: options.callers }, caller)
  return {
    ended,
    left: () => left,
    stop: async () => {
      stopped = true
      await Promise.all(callers)
      await agent.destroy()
    },
  }
}

/** By how much this machine ran us late at worst since the start: what no program can make up. */
export const watchLateness = (): { worstMs(): number; stop(): void } => {
  const beatMs = 5
  let lastMs = performance.now()
  let worst = 0
  const timer = setInterval(() => {
    const nowMs = performance.now()
    worst = Math.max(worst, nowMs - lastMs - beatMs)
    lastMs = nowMs
  }, beatMs)
  return { worstMs: () => worst, stop: () => clearInterval(timer) }
}
