/** From ready to the end: signals, a lost rank, the watchdogs, and the periodic log line. */
import type { Server } from 'node:http'
import type { Group, Stall } from './group.ts'
import type { Service } from './http/service.ts'
import type { Log } from './log.ts'
import type { World } from './world.ts'

/** How often the process looks after itself, real milliseconds. */
const LOOK_MS = 250
/** Simulated spans: vLLM's ring-buffer warning and statistics line; SGLang's drain poll. */
const WARNING_MS = 60_000
const STATS_MS = 10_000
const DRAIN_POLL_MS = 5000
/** For the last bytes to leave, real milliseconds. */
const FLUSH_MS = 100
/** How often vLLM's shutdown looks whether all is answered, real milliseconds. */
const DRAINED_POLL_MS = 20
/** vLLM's launcher looks for a dead engine every five seconds (entrypoints/launcher.py). */
const UVICORN_WATCHDOG_MS = 5000

/** What every CUDA call says on a GPU that has fallen off the bus. */
export const CUDA_LOST =
  'torch.AcceleratorError: CUDA error: unspecified launch failure. CUDA kernel errors might be ' +
  'asynchronously reported at some other API call, so the stacktrace below might be incorrect.'

export class Lifetime {
  readonly #service: Service
  readonly #server: Server
  readonly #log: Log
  readonly #world: World
  #group: Group | null = null
  #lost: number | null = null
  /** What stalls this rank itself, and whether another one stalls the group. */
  #own: Stall = 'none'
  #others = false
  #stuckSinceMs: number | null = null
  #warnedMs = 0
  #stats: { atMs: number; prompt: number; generation: number }
  #busy = { atMs: 0, busyMs: 0, ratio: 0 }

  constructor(service: Service, server: Server, { log, world }: { log: Log; world: World }) {
    this.#service = service
    this.#server = server
    this.#log = log
    this.#world = world
    this.#stats = { atMs: service.clock.now(), prompt: 0, generation: 0 }
  }

  /** Share of time that the GPUs worked since it was last asked a second ago, 0..1. */
  readonly busyRatio = (): number => {
    const now = this.#service.clock.now()
    // A collective that waits for a lost rank spins: nvidia-smi shows 100 %.
    if (this.#stuckSinceMs !== null) return 1
    const span = now - this.#busy.atMs
    if (span < 500 * this.#service.clock.speed) return this.#busy.ratio
    const busyMs = this.#service.busyMs()
    const ratio = Math.min(1, (busyMs - this.#busy.busyMs) / span)
    this.#busy = { atMs: now, busyMs, ratio }
    return ratio
  }

  watch(group: Group | null): void {
    this.#group = group
    group?.onLost((rank) => this.#rankLost(rank))
    group?.onStalled((stalled) => {
      this.#others = stalled
      this.#freezeOrThaw()
    })
    this.#service.clock.every(LOOK_MS, () => this.#look())
    this.#world.onSignal(() => this.#terminate())
  }

  /** Nobody tells rank 0: its next step waits for ever. */
  #rankLost(rank: number): void {
    this.#lost = rank
    this.#freezeOrThaw()
  }

  /** A hang or a partition of rank 0 begins or ends. */
  stall(how: Stall): void {
    this.#own = how
    this.#group?.stall(how)
    this.#freezeOrThaw()
  }

  /** XID: a worker on this node died, the engine knows at once. */
  gpuLost(): void {
    if (this.#service.state === 'dead') return
    this.#log.error('Worker', CUDA_LOST)
    this.#die('a worker process died: CUDA error: unspecified launch failure')
  }

  get #stalled(): boolean {
    return this.#lost !== null || this.#own !== 'none' || this.#others
  }

  #freezeOrThaw(): void {
    const { runner, state } = this.#service
    if (this.#stalled) runner.freeze()
    else if (state !== 'dead') {
      this.#stuckSinceMs = null
      this.#service.probed = false
      runner.thaw()
    }
  }

  #look(): void {
    const { clock, settings } = this.#service
    if (this.#group !== null) this.#group.busyRatio = this.busyRatio()
    const now = clock.now()
    if (now - this.#stats.atMs > STATS_MS) this.#statistics(now)
    if (!this.#stalled || this.#service.state === 'dead') return
    if (this.#service.runner.open === 0 && !this.#service.probed) {
      this.#stuckSinceMs = null
      return
    }
    this.#stuckSinceMs ??= now
    if (
      settings.engine === 'vllm' &&
      now - Math.max(this.#warnedMs, this.#stuckSinceMs) > WARNING_MS
    ) {
      this.#warnedMs = now
      this.#log.info(
        'EngineCore',
        'No available shared memory broadcast block found in 60 seconds. This typically happens ' +
          'when some processes are hanging or doing some time-consuming work.',
      )
    }
    if (now - this.#stuckSinceMs <= settings.watchdogMs) return
    if (settings.engine === 'sglang') {
      this.#log.error('', `Watchdog timeout (self.watchdog_timeout=${settings.watchdogMs / 1000})`)
    }
    this.#die('TimeoutError: RPC call to execute_model timed out.')
  }

  /** The engine's last words, and the end as each engine has it. */
  #die(cause: string): void {
    const { settings, clock, runner } = this.#service
    this.#service.state = 'dead'
    runner.freeze()
    if (settings.engine === 'sglang') {
      this.#log.error(
        '',
        'Received sigquit from a child process. It usually means the child failed.',
      )
      this.#world.exit(137)
    }
    this.#log.error('EngineCore', `EngineCore encountered a fatal error: ${cause}`)
    this.#log.error(
      'APIServer',
      'vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack ' +
        'trace (above) for the root cause.',
    )
    runner.abortAll('error')
    // Seen on vLLM 0.32: the port closes at once and the process ends with status 0.
    clock.after(Math.max(UVICORN_WATCHDOG_MS, 500 * clock.speed), () => this.#world.exit(0))
  }

  /** One line on throughput and load when something happened. */
  #statistics(now: number): void {
    const { settings, runner } = this.#service
    const { engine } = runner
    const { promptTokens, generationTokens } = engine.totals
    const seconds = (now - this.#stats.atMs) / 1000
    const prompt = (promptTokens - this.#stats.prompt) / seconds
    const generation = (generationTokens - this.#stats.generation) / seconds
    this.#stats = { atMs: now, prompt: promptTokens, generation: generationTokens }
    if (prompt + generation === 0 || this.#stalled) return
    const usage = engine.pool.used / Math.max(1, engine.pool.count)
    const [running, waiting] = [engine.running.length, engine.waiting.size]
    if (settings.engine === 'vllm') {
      this.#log.info(
        'APIServer',
        `Engine 000: Avg prompt throughput: ${prompt.toFixed(1)} tokens/s, Avg generation ` +
          `throughput: ${generation.toFixed(1)} tokens/s, Running: ${running} reqs, Waiting: ` +
          `${waiting} reqs, GPU KV cache usage: ${(usage * 100).toFixed(1)}%`,
      )
    } else {
      this.#log.info(
        '',
        `Decode batch, #running-req: ${running}, #token: ${engine.usedTokens}, token usage: ` +
          `${usage.toFixed(2)}, gen throughput (token/s): ${generation.toFixed(2)}, ` +
          `#queue-req: ${waiting}`,
      )
    }
  }

  #terminate(): void {
    if (this.#service.state === 'draining' || this.#service.state === 'dead') return
    this.#service.state = 'draining'
    if (this.#service.settings.engine === 'vllm') this.#terminateVllm()
    else this.#drainSglang()
  }

  /** vLLM: nothing new; requests in flight end at once, or within --shutdown-timeout. */
  #terminateVllm(): void {
    const { settings, clock, runner } = this.#service
    const deadline = clock.now() + settings.shutdownTimeoutMs
    this.#log.plain('INFO:     Shutting down')
    this.#server.close()
    this.#server.closeIdleConnections()
    const poll = () => {
      if (runner.open > 0 && clock.now() < deadline) {
        clock.after(DRAINED_POLL_MS * clock.speed, poll)
        return
      }
      // One of the two endings that vLLM 0.32 was seen to have: `finish_reason: "abort"`.
      runner.abortAll('abort')
      clock.after(FLUSH_MS * clock.speed, () => this.#exit())
    }
    poll()
  }

  /** SGLang: looks every five seconds whether all running requests are done. */
  #drainSglang(): void {
    const { clock, runner } = this.#service
    if (runner.open === 0 || runner.frozen) {
      this.#exit()
      return
    }
    this.#log.info('', `Gracefully exiting... remaining number of requests ${runner.open}`)
    clock.after(DRAIN_POLL_MS, () => this.#drainSglang())
  }

  #exit(): void {
    this.#service.runner.stop()
    this.#group?.close()
    this.#server.closeAllConnections()
    this.#world.exit(0)
  }
}
