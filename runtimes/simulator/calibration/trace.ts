/**
 * The steps that a load makes, found once by the real step loop on a virtual clock. Requests start
 * at zero or when another ends, so what each step computes does not depend on how long steps take:
 * the same trace serves every set of coefficients.
 */
import { architectureOf } from '../../../src/core/catalogue.ts'
import type { Architecture } from '../../../src/core/manifest.ts'
import { readSglang } from '../flags/sglang.ts'
import { readVllm } from '../flags/vllm.ts'
import { planMemory } from '../memory.ts'
import type { CostInput, StepLoad } from '../physics/cost.ts'
import { Engine } from '../physics/engine.ts'
import type { Sequence } from '../physics/sequence.ts'
import type { Settings } from '../settings.ts'
import { Random } from '../text/random.ts'
import type { Load, Row } from './row.ts'

/** Times are numbers of steps: 3 is the end of the third. */
type Answer = {
  readonly arrived: number
  readonly first: number
  readonly last: number
  readonly tokens: number
}

export type Trace = {
  readonly steps: readonly Readonly<StepLoad>[]
  readonly answers: readonly Answer[]
  readonly preemptions: number
}

const shapeOf = ({ model }: Pick<Row, 'model'>): Architecture => {
  const shape = architectureOf({ weights: { huggingface: model, offline: false } })
  if (shape === null) throw new Error(`calibration: nobody knows the shape of ${model}`)
  return shape
}

const settingsOf = (row: Row): Settings => {
  const shape = shapeOf(row)
  const read = row.engine === 'vllm' ? readVllm : readSglang
  const name = row.engine === 'vllm' ? row.model : `--model-path ${row.model}`
  const command = read(`${name} ${row.flags}`.trim().split(' '), {
    maxContext: shape.maxContext,
    attentionHeads: shape.attentionHeads,
    memoryBytes: row.gpu.memoryBytes,
    localGpus: row.gpus,
    environment: {},
  })
  if (!command.ok) throw new Error(`calibration row ${row.name}: ${command.message}`)
  return command.settings
}

/** All that the cost model needs but the coefficients. */
export const costInputOf = (row: Row): Omit<CostInput, 'coefficients'> => {
  const [shape, settings] = [shapeOf(row), settingsOf(row)]
  return {
    shape,
    bandwidthBytesPerSecond: row.gpu.bandwidthBytesPerSecond,
    flops: shape.weightsType === 'fp8' ? row.gpu.fp8Flops : row.gpu.bf16Flops,
    tensor: settings.tensor,
    pipeline: settings.pipeline,
    eager: settings.eager,
    kvBytesPerToken: planMemory(shape, row.gpu.memoryBytes, settings).kvBytesPerToken,
  }
}

/**
 * ShareGPT as vLLM's benchmark filters it: log-normal, at most 1,024 prompt and 2,048 tokens in
 * all. A sigma of 1.1 puts the median near half of the mean.
 */
const SPREAD = { sigma: 1.1, promptMost: 1024, answerMost: 1024 }

const lengths = (load: Load): readonly { prompt: number; answer: number }[] => {
  const random = new Random(20_250_405)
  return Array.from({ length: load.requests }, () => ({
    prompt: draw(random, load.spread, load.prompt, SPREAD.promptMost),
    answer: draw(random, load.spread, load.answer, SPREAD.answerMost),
  }))
}

const draw = (random: Random, spread: Load['spread'], mean: number, most: number): number => {
  switch (spread) {
    case 'none':
      return mean
    case 'near':
      return Math.round(mean * (0.8 + 0.4 * random.next()))
    case 'wide':
      return Math.max(1, Math.round(2 * mean * random.next()))
    case 'sharegpt': {
      // The mean of a log-normal is its median times e^(sigma^2 / 2); the cut takes 8 % of it.
      const median = (1.08 * mean) / Math.exp(SPREAD.sigma ** 2 / 2)
      return Math.min(most, Math.max(4, random.around(median, SPREAD.sigma)))
    }
  }
}

export const engineOf = (row: Row, cost: ConstructorParameters<typeof Engine>[1]): Engine => {
  const settings = settingsOf(row)
  const { poolTokens } = planMemory(shapeOf(row), row.gpu.memoryBytes, settings)
  return new Engine(
    {
      style: settings.engine,
      poolTokens,
      blockTokens: settings.blockTokens,
      batchTokensMax: settings.batchTokensMax,
      runningMax: settings.runningMax,
      queuedMax: null,
      // Prompts of these benchmarks share nothing.
      prefixCache: false,
      priority: 'off',
      newTokenRatio: settings.newTokenRatio,
    },
    cost,
  )
}

/** Plays a load on an engine; `onStep` sees every step. Returns the answers in order of ending. */
export const play = (
  engine: Engine,
  load: Load,
  onStep: (step: Readonly<StepLoad>) => void = () => {},
): readonly Sequence[] => {
  const todo = [...lengths(load).entries()].reverse()
  const source = { next: () => 7, ended: false }
  const add = (nowMs: number): void => {
    const next = todo.pop()
    if (next === undefined) return
    const [salt, { prompt, answer }] = next
    const fields = { maxTokens: answer, priority: 0, salt, source, siblings: 1 }
    engine.add({ ...fields, prompt: new Int32Array(prompt) }, nowMs)
  }
  for (let open = 0; open < load.concurrency; open += 1) add(0)
  const done: Sequence[] = []
  let now = 0
  for (;;) {
    const end = engine.begin(now)
    if (end === null) return done
    now = end
    const result = engine.finish()
    onStep(result.load)
    for (const sequence of result.finished) {
      done.push(sequence)
      add(now)
    }
  }
}

export const traceOf = (row: Row, load: Load): Trace => {
  const steps: StepLoad[] = []
  const engine = engineOf(row, { stepMs: () => 1, busyRatio: 1 })
  const done = play(engine, load, (step) => steps.push({ ...step }))
  return {
    steps,
    preemptions: engine.totals.preemptions,
    answers: done.map((one) => ({
      arrived: one.arrivedMs,
      first: one.firstTokenMs,
      last: one.lastTokenMs,
      tokens: one.produced,
    })),
  }
}
