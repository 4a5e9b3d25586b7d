/**
 * One request being answered: several sequences (`n`, several prompts) that share one response.
 * Tokens gather as text and leave once per flush, so that under load several share a chunk.
 */
import { RequestFaults } from '../faults/request-faults.ts'
import type { Sequence } from '../physics/sequence.ts'
import type { SequenceListener } from '../runner.ts'
import { Answer } from '../text/answer.ts'
import { type Ask, answerPlan, promptTokens } from './ask.ts'
import type { Choice, Dialect, Ending, Head, Usage } from './dialect.ts'
import type { EngineResponse } from './response.ts'
import type { Service } from './service.ts'
import { type Refusal, sendJson } from './wire.ts'

/** One entry of `choices`. */
type Part = {
  readonly index: number
  readonly answer: Answer
  readonly promptText: string
  readonly callId: string
  sequence: Sequence | null
  reasoning: string
  content: string
  tool: string
  tokens: string[]
  toolStarted: boolean
  opened: boolean
  ended: boolean
}

export const DEAD: Refusal = {
  kind: 'dead',
  status: 500,
  message: 'EngineCore encountered an issue. See stack trace (above) for the root cause.',
  param: null,
}

/** What the faults error-500 and error-429 say; the words of torch and of HTTP. */
export const FAILED = {
  500: {
    kind: 'internal',
    status: 500,
    message: 'CUDA error: an illegal memory access was encountered',
    param: null,
  },
  429: { kind: 'limited', status: 429, message: 'Too Many Requests', param: null },
} as const

export class Exchange {
  readonly #service: Service
  readonly #ask: Ask
  readonly #response: EngineResponse
  readonly #dialect: Dialect
  readonly #head: Head
  readonly #faults: RequestFaults
  readonly #parts: Part[] = []
  #open = 0
  #failed = false

  constructor(
    service: Service,
    ask: Ask,
    response: EngineResponse,
    dialect: Dialect = service.dialect,
  ) {
    this.#service = service
    this.#ask = ask
    this.#response = response
    this.#dialect = dialect
    const { faults, clock } = service
    this.#faults = new RequestFaults(faults, clock.now(), ask.maxTokens * ask.n)
    this.#head = {
      kind: ask.kind,
      id: requestId(service, ask.kind),
      created: service.clock.epochSeconds(),
      model: ask.model,
    }
  }

  start(): void {
    const { runner, clock } = this.#service
    const { stream } = this.#ask
    this.#response.suffer(this.#faults, clock)
    if (this.#faults.status !== null) {
      sendJson(this.#response, this.#dialect.error(FAILED[this.#faults.status]))
      return
    }
    if (runner.engine.full) {
      const message = 'The request queue is full.'
      this.#service.metrics.rejected()
      this.#refuse({ kind: 'queue', status: 503, message, param: null })
      return
    }
    this.#response.once('close', () => this.#closed())
    // vLLM's StreamingResponse sends its head at once; SGLang awaits the first chunk.
    if (stream && this.#dialect.firstOpens) this.#writeHead()
    for (const prompt of this.#ask.prompts) {
      const ids = prompt.tokens.toArray()
      for (let copy = 0; copy < this.#ask.n; copy += 1) {
        const index = this.#parts.length
        const answer = new Answer(answerPlan(this.#ask, prompt, index))
        const callId = `call_${this.#service.hex().slice(0, 24)}`
        const part = newPart({ index, answer, promptText: prompt.echo, callId })
        this.#parts.push(part)
        this.#submit(part, ids)
      }
    }
    if (this.#open === 0 && !this.#response.writableEnded) this.#complete()
  }

  #submit(part: Part, prompt: Int32Array): void {
    const { maxTokens, priority, salt, n, stream: streaming } = this.#ask
    const more = { siblings: n, streaming }
    const input = { prompt, maxTokens, priority, salt, source: part.answer, ...more }
    part.sequence = this.#service.runner.submit(input, this.#listener(part))
    if (part.sequence === null) part.ended = true
    else this.#open += 1
  }

  #listener(part: Part): SequenceListener {
    return {
      token: () => this.#token(part),
      finished: (sequence) => this.#finished(part, sequence),
      flush: () => this.#flush(part),
    }
  }

  #token(part: Part): void {
    const { answer } = part
    const { channel } = answer
    const piece = this.#faults.text(answer.piece)
    this.#response.token()
    if (channel === 'reasoning') part.reasoning += piece
    else if (channel === 'tool') part.tool += piece
    else part.content += piece
    if (this.#ask.logprobs && piece !== '') part.tokens.push(piece)
  }

  #finished(part: Part, sequence: Sequence): void {
    part.ended = true
    this.#open -= 1
    if (sequence.finish === 'error') this.#failed = true
    if (sequence.finish === 'length') part.content += this.#faults.text(part.answer.rest())
    if (this.#ask.stream && !this.#failed && !this.#response.writableEnded) this.#send(part)
    if (this.#open === 0 && this.#parts.every(({ ended }) => ended)) this.#complete()
  }

  /** Sends what has gathered; waits while the client reads slower than the engine writes. */
  #flush(part: Part): void {
    if (!this.#ask.stream || this.#failed || part.ended || this.#response.writableEnded) return
    if (this.#response.full) return
    const every = this.#service.settings.streamInterval
    const produced = part.sequence?.produced ?? 0
    if (every > 1 && produced > 1 && produced % every !== 0) return
    if (part.reasoning === '' && part.content === '' && part.tool === '') return
    this.#send(part)
  }

  #send(part: Part): void {
    const { kind } = this.#head
    const { includeUsage, logprobs, topLogprobs } = this.#ask
    this.#writeHead()
    if (!part.opened) this.#opening(part)
    const { index, reasoning, content } = part
    const tool = part.tool === '' ? null : this.#toolPiece(part)
    const tokens = logprobs ? { tokens: part.tokens, top: topLogprobs } : null
    const end = part.ended ? ending(part) : null
    const choice = this.#dialect.piece(
      kind,
      { index, reasoning, content, tool, logprobs: tokens },
      end,
    )
    const last = part.ended && this.#open === 0 && !includeUsage
    const usage = this.#chunkUsage()
    this.#response.write(
      last
        ? this.#dialect.lastChunk(this.#head, choice, usage)
        : this.#dialect.chunk(this.#head, choice, usage),
    )
    part.reasoning = ''
    part.content = ''
    part.tool = ''
    part.tokens = []
  }

  #opening(part: Part): void {
    part.opened = true
    if (this.#ask.echo) part.content = part.promptText + part.content
    const usage = this.#ask.continuousUsage
      ? this.#dialect.chunkUsage(this.#head, { ...this.#usage(), completion: 0, reasoning: 0 })
      : null
    this.#response.write(this.#dialect.opening(this.#head, part.index, usage))
  }

  #toolPiece(part: Part) {
    const first = !part.toolStarted
    part.toolStarted = true
    return { name: this.#ask.tool?.name ?? '', id: part.callId, first, arguments: part.tool }
  }

  #chunkUsage(): unknown {
    return this.#ask.continuousUsage ? this.#dialect.chunkUsage(this.#head, this.#usage()) : null
  }

  #writeHead(): void {
    if (this.#response.headersSent) return
    this.#response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    this.#response.flushHeaders()
  }

  #complete(): void {
    const { stream, includeUsage } = this.#ask
    if (this.#response.writableEnded || this.#response.destroyed) return
    if (this.#failed) {
      if (!stream || !this.#response.headersSent)
        sendJson(this.#response, this.#dialect.error(DEAD))
      else this.#response.end(this.#dialect.streamError(DEAD))
      return
    }
    const usage = this.#usage()
    if (!stream) {
      const choices = this.#parts.map((part) => this.#choice(part))
      sendJson(this.#response, {
        status: 200,
        body: this.#dialect.whole(this.#head, choices, usage),
      })
      return
    }
    const last = this.#dialect.lastUsage(this.#head, usage)
    const tail = includeUsage ? this.#dialect.lastChunk(this.#head, '', last) : ''
    this.#response.end(tail + this.#dialect.done)
  }

  #choice(part: Part): Choice {
    const tool = this.#ask.tool
    const thinks = this.#ask.plan.thinks
    const echo = this.#ask.echo ? part.promptText : ''
    const cutInThought = thinks && part.content === '' && part.tool === ''
    return {
      index: part.index,
      reasoning: thinks ? part.reasoning : null,
      content: cutInThought ? null : echo + part.content,
      tool:
        tool === null || part.tool === ''
          ? null
          : { ...tool, id: part.callId, arguments: part.tool },
      logprobs: this.#ask.logprobs ? { tokens: part.tokens, top: this.#ask.topLogprobs } : null,
      ending: ending(part),
    }
  }

  #usage(): Usage {
    let [completion, reasoning] = [0, 0]
    for (const part of this.#parts) {
      completion += part.sequence?.produced ?? 0
      reasoning += part.answer.reasoningTokens
    }
    const cached = this.#parts[0]?.sequence?.cached ?? 0
    const prompt = promptTokens(this.#ask)
    const block = this.#service.settings.blockTokens
    const created = Math.max(0, Math.floor(prompt / block) * block - cached)
    return { prompt, completion, cached, created, reasoning }
  }

  /** Refused before anything ran: SGLang's stream says so in an event under status 200. */
  #refuse(why: Refusal): void {
    if (this.#ask.stream && this.#service.settings.engine === 'sglang') {
      this.#writeHead()
      this.#response.end(this.#dialect.streamError(why))
    } else sendJson(this.#response, this.#dialect.error(why))
  }

  /** The client left: vLLM aborts at once, SGLang's background task after two seconds. */
  #closed(): void {
    if (this.#open === 0) return
    const { settings, clock, runner } = this.#service
    const abort = () => {
      for (const { sequence } of this.#parts) if (sequence !== null) runner.abort(sequence)
    }
    if (settings.engine === 'vllm') abort()
    else clock.after(SGLANG_ABORT_MS, abort)
  }
}

export const SGLANG_ABORT_MS = 2000

const ending = (part: Part): Ending => {
  const finish = part.sequence?.finish ?? 'abort'
  const reason = finish === 'stop' && part.toolStarted ? 'tool_calls' : finish
  const called = finish === 'stop' && part.tool !== ''
  return { reason: called ? 'tool_calls' : reason, stopped: part.answer.stopped }
}

/** vLLM's ids carry 16 hexadecimal digits; SGLang's are bare 32. */
const requestId = ({ settings, hex }: Service, kind: Ask['kind']): string =>
  settings.engine === 'vllm'
    ? `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${hex().slice(0, 16)}`
    : hex()

const newPart = (fixed: Pick<Part, 'index' | 'answer' | 'promptText' | 'callId'>): Part => ({
  ...fixed,
  sequence: null,
  reasoning: '',
  content: '',
  tool: '',
  tokens: [],
  toolStarted: false,
  opened: false,
  ended: false,
})
