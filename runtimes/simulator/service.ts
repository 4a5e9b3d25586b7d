/** Puts an engine together: step loop, costs, metrics and dialect from one command line. */
import { createHash, randomUUID } from 'node:crypto'
import type { Rehearsal } from '../../src/core/runtime.ts'
import type { SimulatedClock } from './clock.ts'
import type { FaultSchedule } from './faults/schedule.ts'
import type { Service } from './http/service.ts'
import { sglangDialect } from './http/sglang-dialect.ts'
import { vllmDialect } from './http/vllm-dialect.ts'
import type { Log } from './log.ts'
import type { Memory } from './memory.ts'
import { freezable } from './metrics/frozen.ts'
import { sglangMetrics } from './metrics/sglang.ts'
import { vllmMetrics } from './metrics/vllm.ts'
import type { Retraction } from './physics/admission.ts'
import { coefficientsFor } from './physics/coefficients.ts'
import { type CostModel, costModel } from './physics/cost.ts'
import { Engine } from './physics/engine.ts'
import { Runner } from './runner.ts'
import type { Settings } from './settings.ts'
import { scriptAt } from './text/script.ts'

export const costOf = (
  settings: Pick<Settings, 'tensor' | 'pipeline'>,
  rehearsal: Rehearsal,
  kvBytesPerToken: number,
): CostModel => {
  const { architecture, gpuName, gpus } = rehearsal
  const crossNode = settings.tensor > Math.max(1, gpus.length)
  return costModel({
    shape: architecture,
    bandwidthBytesPerSecond: rehearsal.bandwidthBytesPerSecond,
    flops: architecture.weightsType === 'fp8' ? rehearsal.fp8Flops : rehearsal.bf16Flops,
    tensor: settings.tensor,
    pipeline: settings.pipeline,
    kvBytesPerToken,
    coefficients: coefficientsFor(gpuName, crossNode, settings.tensor > 1),
  })
}

/** vLLM names its version and a hash of the configuration. */
const fingerprint = (settings: Settings): string => {
  const hash = createHash('sha256').update(JSON.stringify(settings)).digest('hex')
  return `vllm-${settings.version}-${hash.slice(0, 8)}`
}

/** srt/managers/scheduler.py, update_running_batch. */
const retractionText = ({ requests, tokens, from, to }: Retraction): string =>
  `KV cache pool is full. Retract requests. #retracted_reqs: ${requests}, #new_tokens_gained: ` +
  `${tokens}, #new_token_ratio: ${from.toFixed(4)} -> ${to.toFixed(4)}`

export const buildService = (
  settings: Settings,
  rehearsal: Rehearsal,
  clock: SimulatedClock,
  parts: {
    readonly memory: Memory
    readonly faults: FaultSchedule
    readonly stdout?: (text: string) => void
    readonly hex?: () => string
    readonly log?: Log
  },
): Service => {
  const { memory, faults } = parts
  const script = scriptAt(rehearsal.script)
  if (!script.ok) throw new Error(script.message)
  const cost = costOf(settings, rehearsal, memory.kvBytesPerToken)
  const engine = new Engine(
    {
      style: settings.engine,
      poolTokens: memory.poolTokens,
      blockTokens: settings.blockTokens,
      batchTokensMax: settings.batchTokensMax,
      runningMax: settings.runningMax,
      queuedMax: settings.queuedMax,
      prefixCache: settings.prefixCache,
      priority: settings.priority,
      newTokenRatio: settings.newTokenRatio,
    },
    cost,
  )
  const counted =
    settings.engine === 'vllm'
      ? vllmMetrics(engine, settings, memory, clock.epochSeconds())
      : sglangMetrics(engine, settings, clock, memory)
  const metrics = freezable(counted, () => faults.active('freeze-counters', clock.now()) !== null)
  const busy = { ms: 0 }
  const runner = new Runner(engine, clock, {
    onStep: (result) => {
      busy.ms += (result.endMs - result.startMs) * cost.busyRatio
      metrics.step(result)
      if (engine.retraction !== null) parts.log?.warn('', retractionText(engine.retraction))
    },
    onEnd: (sequence) => metrics.ended(sequence),
    onIdle: () => metrics.idle(),
  })
  return {
    settings,
    rehearsal,
    clock,
    runner,
    memory,
    faults,
    metrics,
    dialect:
      settings.engine === 'vllm'
        ? vllmDialect(settings, fingerprint(settings))
        : sglangDialect(settings),
    stdout: parts.stdout ?? (() => {}),
    hex: parts.hex ?? (() => randomUUID().replaceAll('-', '')),
    script: script.lines,
    state: 'starting',
    inFlight: 0,
    probed: false,
    created: clock.epochSeconds(),
    busyMs: () => busy.ms,
  }
}
