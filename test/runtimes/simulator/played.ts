/** Engines of any played version without a process: commands, settings, and a stepped engine. */
import { runtimes } from '../../../runtimes/index.ts'
import { SimulatedClock } from '../../../runtimes/simulator/clock.ts'
import { readSglang } from '../../../runtimes/simulator/flags/sglang.ts'
import { readVllm } from '../../../runtimes/simulator/flags/vllm.ts'
import { planMemory } from '../../../runtimes/simulator/memory.ts'
import type { EngineMetrics } from '../../../runtimes/simulator/metrics/engine-metrics.ts'
import { sglangMetrics } from '../../../runtimes/simulator/metrics/sglang.ts'
import { vllmMetrics } from '../../../runtimes/simulator/metrics/vllm.ts'
import { Engine } from '../../../runtimes/simulator/physics/engine.ts'
import type { Command } from '../../../runtimes/simulator/settings.ts'
import { parseExposition } from '../../../src/core/prometheus.ts'
import { readSignals, type Signals } from '../../../src/core/signals.ts'
import { H20, QWQ } from './support.ts'

export type Name = 'vllm' | 'sglang'
export const command = (engine: Name, version: string | null, more = ''): Command => {
  const line = engine === 'vllm' ? 'm' : '--model-path m --enable-metrics'
  const argv = `${line} ${more}`.trim().split(' ')
  const facts = {
    maxContext: 32_768,
    attentionHeads: QWQ.attentionHeads,
    memoryBytes: H20.memoryBytes,
    localGpus: 1,
    environment: {},
    ...(version === null ? {} : { asVersion: version }),
  }
  return engine === 'vllm' ? readVllm(argv, facts) : readSglang(argv, facts)
}

export const settingsOf = (engine: Name, version: string | null, more = '') => {
  const read = command(engine, version, more)
  if (!read.ok) throw new Error(read.message)
  return read.settings
}

class HandClock extends SimulatedClock {
  ms = 0
  override now(): number {
    return this.ms
  }
}

/** An engine whose steps take 10 ms, with its metrics, played without a process. */
export class Played {
  readonly clock = new HandClock(1)
  readonly engine: Engine
  readonly metrics: EngineMetrics
  readonly name: Name

  constructor(name: Name, version: string, more = '', pool = 4096) {
    const settings = settingsOf(name, version, more)
    const memory = { ...planMemory(QWQ, H20.memoryBytes, settings), poolTokens: pool }
    this.name = name
    this.engine = new Engine(
      {
        style: name,
        poolTokens: pool,
        blockTokens: settings.blockTokens,
        batchTokensMax: settings.batchTokensMax,
        runningMax: settings.runningMax,
        queuedMax: null,
        prefixCache: true,
        priority: settings.priority,
        newTokenRatio: settings.newTokenRatio,
      },
      { stepMs: () => 10, busyRatio: 1 },
    )
    this.metrics =
      name === 'vllm'
        ? vllmMetrics(this.engine, settings, memory, 1)
        : sglangMetrics(this.engine, settings, this.clock, memory)
  }

  add(promptTokens: number, maxTokens: number, salt = 0): void {
    const prompt = Int32Array.from({ length: promptTokens }, (_, at) => at * 31 + salt * 7919)
    const source = { next: () => 7, ended: false }
    this.engine.add({ prompt, maxTokens, priority: 0, salt: 0, source, siblings: 1 }, this.clock.ms)
  }

  /** At most so many steps; how many there were. */
  run(most: number): number {
    for (let steps = 0; steps < most; steps += 1) {
      const end = this.engine.begin(this.clock.ms)
      if (end === null) {
        this.metrics.idle()
        return steps
      }
      const result = this.engine.finish()
      this.clock.ms = end
      this.metrics.step(result)
      for (const sequence of result.finished) this.metrics.ended(sequence)
    }
    return most
  }

  get text(): string {
    return this.metrics.text()
  }

  get signals(): Signals {
    return readSignals(parseExposition(this.text).samples, runtimes[this.name].metrics)
  }
}
