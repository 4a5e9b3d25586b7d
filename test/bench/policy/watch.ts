/** What an engine says of itself while a bench runs: read from its own /metrics, not from ours. */
import { parseExposition } from '../../../src/core/prometheus.ts'

/** In real milliseconds; a simulated step of a full R1 takes about 20 of them. */
const EVERY_MS = 100

const WAITING = ['vllm:num_requests_waiting', 'sglang:num_queue_reqs']
const RUNNING = ['vllm:num_requests_running', 'sglang:num_running_reqs']
const KV = ['vllm:kv_cache_usage_perc', 'sglang:token_usage']
const PREEMPTED = ['vllm:num_preemptions_total', 'sglang:num_retracted_requests_total']
/** SGLang's generation_tokens_total grows when requests end; this grows with each step. */
const DECODED = 'sglang:realtime_tokens_total'

export type Watched = {
  readonly waitingMax: number
  /** Share of readings with more than two waiting. */
  readonly waitingAbove2: number
  readonly runningMax: number
  readonly kvMax: number
  readonly preempted: number
  readonly generatedTokens: number
}

export class Watch {
  readonly #url: string
  readonly #closing = new AbortController()
  readonly #done: Promise<void>
  #readings = 0
  #above2 = 0
  #max = { waiting: 0, running: 0, kv: 0 }
  #first: { preempted: number; generated: number } | null = null
  #last = { preempted: 0, generated: 0 }

  constructor(url: string) {
    this.#url = url
    this.#done = this.#run()
  }

  async stop(): Promise<Watched> {
    this.#closing.abort()
    await this.#done
    const first = this.#first ?? this.#last
    return {
      waitingMax: this.#max.waiting,
      waitingAbove2: this.#readings === 0 ? 0 : this.#above2 / this.#readings,
      runningMax: this.#max.running,
      kvMax: this.#max.kv,
      preempted: this.#last.preempted - first.preempted,
      generatedTokens: this.#last.generated - first.generated,
    }
  }

  async #run(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      this.#see(await (await fetch(`${this.#url}/metrics`)).text())
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
    }
  }

  #see(text: string): void {
    const { samples } = parseExposition(text)
    const sum = (names: readonly string[]): number =>
      samples.filter(({ name }) => names.includes(name)).reduce((all, { value }) => all + value, 0)
    const waiting = sum(WAITING)
    this.#readings += 1
    if (waiting > 2) this.#above2 += 1
    this.#max = {
      waiting: Math.max(this.#max.waiting, waiting),
      running: Math.max(this.#max.running, sum(RUNNING)),
      kv: Math.max(this.#max.kv, sum(KV)),
    }
    const decoded = samples
      .filter(({ name, labels }) => name === DECODED && labels.get('mode') === 'decode')
      .reduce((all, { value }) => all + value, 0)
    const generated = sum(['vllm:generation_tokens_total']) + decoded
    this.#last = { preempted: sum(PREEMPTED), generated }
    this.#first ??= this.#last
  }
}
