import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readSglang } from '../../../runtimes/simulator/flags/sglang.ts'
import { readVllm } from '../../../runtimes/simulator/flags/vllm.ts'
import { planMemory } from '../../../runtimes/simulator/memory.ts'
import { Admission } from '../../../runtimes/simulator/physics/admission.ts'
import { BlockPool } from '../../../runtimes/simulator/physics/blocks.ts'
import { Engine, type EngineConfig } from '../../../runtimes/simulator/physics/engine.ts'
import type { Sequence } from '../../../runtimes/simulator/physics/sequence.ts'
import type { Architecture } from '../../../src/core/manifest.ts'
import { H20, QWQ, R1 } from './support.ts'

const FLAT = { stepMs: () => 10, busyRatio: 1 }
const endless = () => ({ next: () => 7, ended: false })

const config = (over: Partial<EngineConfig> = {}): EngineConfig => ({
  style: 'vllm',
  poolTokens: 512,
  blockTokens: 16,
  batchTokensMax: 64,
  runningMax: 8,
  queuedMax: null,
  prefixCache: true,
  priority: 'off',
  ...over,
})

const prompt = (length: number, salt = 0): Int32Array =>
  Int32Array.from({ length }, (_, index) => index * 31 + salt * 7919)

const ask = (length: number, maxTokens: number, salt = 0) => ({
  prompt: prompt(length, salt),
  maxTokens,
  priority: 0,
  salt: 0,
  source: endless(),
  siblings: 1,
})

/** Every held block is held exactly as often as running sequences say. */
const checkBlocks = (engine: Engine): void => {
  const held = new Map<number, number>()
  for (const { blocks } of engine.running) {
    if (new Set(blocks).size !== blocks.length) throw new Error('a block twice in one sequence')
    for (const block of blocks) held.set(block, (held.get(block) ?? 0) + 1)
  }
  let used = 0
  for (let block = 0; block < engine.pool.count; block += 1) {
    if (engine.pool.references(block) !== (held.get(block) ?? 0)) throw new Error(`block ${block}`)
    if (held.has(block)) used += 1
  }
  expect(engine.pool.used).toBe(used)
}

const run = (engine: Engine, each: (nowMs: number) => void = () => {}): Sequence[] => {
  const done: Sequence[] = []
  let now = 0
  for (let steps = 0; steps < 20_000; steps += 1) {
    const end = engine.begin(now)
    if (end === null) return done
    done.push(...engine.finish().finished)
    now = end
    each(now)
  }
  throw new Error('the engine does not come to rest')
}

const commands = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant('add' as const),
      prompt: fc.integer({ min: 1, max: 300 }),
      max: fc.integer({ min: 1, max: 200 }),
      salt: fc.integer({ min: 0, max: 2 }),
      priority: fc.integer({ min: -2, max: 2 }),
    }),
    fc.record({ kind: fc.constant('abort' as const), which: fc.nat(30) }),
    fc.record({ kind: fc.constant('step' as const), count: fc.integer({ min: 1, max: 30 }) }),
  ),
  { maxLength: 60 },
)

describe('the step loop', () => {
  test.each(['vllm', 'sglang'] as const)(
    '%s: blocks, accounts and rest, whatever comes',
    (style) => {
      const priority = fc.constantFrom('off', 'low-first', 'high-first')
      fc.assert(
        fc.property(commands, priority, fc.boolean(), (all, order, prefixCache) => {
          const engine = new Engine(config({ style, priority: order, prefixCache }), FLAT)
          const sequences: Sequence[] = []
          let [now, ended] = [0, 0]
          for (const command of all) {
            if (command.kind === 'add') {
              const input = { ...ask(command.prompt, command.max, command.salt) }
              const added = engine.add({ ...input, priority: command.priority }, now)
              if (added !== null) sequences.push(added)
            } else if (command.kind === 'abort') {
              const victim = sequences[command.which]
              if (victim !== undefined && victim.state !== 'finished') {
                engine.abort(victim, now)
                ended += 1
              }
            } else {
              for (let step = 0; step < command.count; step += 1) {
                const end = engine.begin(now)
                if (end === null) break
                checkBlocks(engine)
                ended += engine.finish().finished.length
                now = end
                checkBlocks(engine)
              }
            }
            // In = out + open.
            expect(sequences.length).toBe(ended + engine.running.length + engine.waiting.size)
            expect(engine.running.length).toBeLessThanOrEqual(8)
          }
          run(engine)
          expect(engine.pool.used).toBe(0)
          expect(engine.idle).toBe(true)
          for (const sequence of sequences) {
            if (sequence.finish === 'abort') continue
            expect(sequence.produced).toBe(
              Math.min(sequence.maxTokens, 512 - sequence.promptTokens),
            )
          }
        }),
        { numRuns: 300 },
      )
    },
  )

  test('a decode token for each running request in every step, prefill in chunks of the budget', () => {
    const engine = new Engine(config({ poolTokens: 4096 }), FLAT)
    const first = engine.add(ask(32, 50), 0)
    run1(engine)
    engine.add(ask(300, 5, 1), 10)
    for (let step = 0; step < 4; step += 1) {
      const before = first?.produced ?? 0
      engine.begin(0)
      expect(engine.finish().load).toMatchObject({ decodeTokens: 1, prefillTokens: 63 })
      expect(first?.produced).toBe(before + 1)
    }
  })

  test('SGLang: prefill batches go before decode batches, and do not mix', () => {
    const engine = new Engine(config({ style: 'sglang', poolTokens: 4096 }), FLAT)
    engine.add(ask(32, 50), 0)
    run1(engine)
    engine.add(ask(100, 5, 1), 10)
    const loads = Array.from({ length: 3 }, () => {
      engine.begin(0)
      return { ...engine.finish().load }
    })
    expect(loads.map((load) => [load.prefillTokens, load.decodeTokens])).toEqual([
      [64, 0],
      [36, 0],
      [0, 2],
    ])
  })

  test('too little KV: the last one is preempted, computed again, and still complete', () => {
    const engine = new Engine(config({ poolTokens: 256, prefixCache: false }), FLAT)
    const all = [0, 1, 2].map((salt) => engine.add(ask(60, 120, salt), 0))
    let fullest = 0
    run(engine, () => {
      fullest = Math.max(fullest, engine.pool.used)
    })
    expect(engine.totals.preemptions).toBeGreaterThan(0)
    expect(fullest).toBeLessThanOrEqual(16)
    expect(all.map((one) => one?.produced)).toEqual([120, 120, 120])
    expect(all[0]?.preemptions).toBe(0)
    expect(engine.totals.generationTokens).toBe(360)
    expect(engine.totals.promptTokens).toBe(180)
  })

  test('a prompt seen before is found in whole blocks, the last token computed anyway', () => {
    const engine = new Engine(config({ poolTokens: 4096 }), FLAT)
    engine.add(ask(100, 1), 0)
    run(engine)
    const again = engine.add(ask(100, 1), 0)
    const whole = engine.add(ask(96, 1), 0)
    const other = engine.add(ask(100, 1, 5), 0)
    run(engine)
    expect([again?.cached, whole?.cached, other?.cached]).toEqual([96, 80, 0])
    expect(engine.totals.cachedTokens).toBe(176)
  })

  test('least recently used blocks go first', () => {
    const pool = new BlockPool(3)
    const [a, b, c] = [pool.take(), pool.take(), pool.take()]
    expect(pool.take()).toBe(-1)
    pool.name(a, 11)
    pool.name(b, 12)
    for (const block of [b, a, c]) pool.release(block)
    expect(pool.take()).toBe(b)
    expect(pool.find(12)).toBe(-1)
    pool.claim(pool.find(11))
    expect(pool.used).toBe(2)
    expect(pool.take()).toBe(c)
    expect(() => pool.release(99)).toThrow()
  })

  test('a bounded queue: vLLM counts running requests, SGLang only waiting ones', () => {
    for (const [style, room] of [
      ['vllm', 2],
      ['sglang', 3],
    ] as const) {
      const engine = new Engine(config({ style, queuedMax: 2, runningMax: 1 }), FLAT)
      engine.add(ask(10, 50), 0)
      run1(engine)
      let held = 1
      while (engine.add(ask(10, 50), 0) !== null) held += 1
      expect(held).toBe(room)
    }
  })

  test('priority: low first (vLLM) or high first (SGLang)', () => {
    for (const [order, expected] of [
      ['low-first', [-1, 0, 5]],
      ['high-first', [5, 0, -1]],
    ] as const) {
      const engine = new Engine(config({ priority: order, runningMax: 1 }), FLAT)
      for (const priority of [0, 5, -1]) engine.add({ ...ask(10, 2), priority }, 0)
      expect(run(engine).map(({ priority }) => priority)).toEqual(expected)
    }
  })
})

describe('SGLang lets in what will have room for its answer', () => {
  const sglang = (over: Partial<EngineConfig> = {}) =>
    new Engine(config({ style: 'sglang', batchTokensMax: 1000, prefixCache: false, ...over }), FLAT)

  test('a newcomer needs all that it asks for, those that run a share that falls from 0.7', () => {
    const engine = sglang({ poolTokens: 3200, runningMax: 64 })
    for (let salt = 0; salt < 20; salt += 1) engine.add(ask(16, 1000, salt), 0)
    run1(engine)
    // 16 + 1000 + a page each of 3200: the fourth would leave less than it asks for.
    expect(engine.running.length).toBe(3)
    const counts: number[] = []
    run(engine, () => counts.push(engine.running.length))
    // Nobody is let in before one leaves, though the ratio falls: a third of what vLLM runs.
    expect(Math.max(...counts)).toBe(3)
    expect(engine.waiting.size).toBe(0)
  })

  test('--schedule-conservativeness keeps more free', () => {
    const letIn = (newTokenRatio: number): number => {
      const engine = sglang({ poolTokens: 4000, runningMax: 64, newTokenRatio })
      for (let salt = 0; salt < 3; salt += 1) engine.add(ask(16, 1000, salt), 0)
      run1(engine)
      for (let salt = 3; salt < 9; salt += 1) engine.add(ask(16, 1000, salt), 0)
      run1(engine)
      return engine.running.length
    }
    expect([letIn(0), letIn(0.3), letIn(1)]).toEqual([6, 5, 3])
  })

  test('no answer is reserved more than 4096 tokens', () => {
    const engine = sglang({ poolTokens: 20_000, runningMax: 64 })
    for (let salt = 0; salt < 9; salt += 1) engine.add(ask(16, 19_000, salt), 0)
    run1(engine)
    expect(engine.running.length).toBe(4)
  })

  test('retraction: the least done goes to the end of the queue, and all come through', () => {
    const engine = sglang({ poolTokens: 320, newTokenRatio: 0 })
    const first = engine.add(ask(16, 250, 0), 0)
    run1(engine)
    for (let step = 0; step < 20; step += 1) run1(engine)
    const second = engine.add(ask(16, 200, 1), 0)
    run1(engine)
    const third = engine.add(ask(16, 50, 2), 0)
    const said: (typeof engine.retraction)[] = []
    run(engine, () => said.push(engine.retraction))
    expect([first, second, third].map((one) => one?.produced)).toEqual([250, 200, 50])
    expect(first?.preemptions).toBe(0)
    expect(second?.preemptions).toBeGreaterThan(0)
    const told = said.filter((one) => one !== null)
    const sum = told.reduce((all, { requests }) => all + requests, 0)
    expect(sum).toBe(engine.totals.preemptions)
    expect(told[0]).toMatchObject({ from: 0 })
    expect(told[0]?.to).toBeGreaterThan(0.1)
    expect(told[0]?.tokens).toBeGreaterThanOrEqual(16)
    expect(engine.pool.used).toBe(0)
  })

  test('the ratio: 600 decode steps to 0.14 of itself, less after a retraction, anew when idle', () => {
    const admission = new Admission(0.7, 16)
    for (let step = 0; step < 300; step += 1) admission.decay()
    expect(admission.ratio).toBeCloseTo((0.7 + 0.098) / 2, 6)
    for (let step = 0; step < 400; step += 1) admission.decay()
    expect(admission.ratio).toBeCloseTo(0.098, 9)
    const engine = sglang({ poolTokens: 4096 })
    for (let salt = 0; salt < 2; salt += 1) engine.add(ask(16, 1000, salt), 0)
    for (let step = 0; step < 101; step += 1) run1(engine)
    admission.retracted(engine.running)
    // 101 tokens done and 20 granted of 1000, each of two.
    expect(admission.ratio).toBeCloseTo(242 / 2001, 9)
    admission.reset()
    expect(admission.ratio).toBe(0.7)
  })
})

const run1 = (engine: Engine): void => {
  engine.begin(0)
  engine.finish()
}

describe('KV pool (design facts, section 6)', () => {
  const facts = (shape: Architecture, localGpus: number) => ({
    maxContext: shape.maxContext,
    attentionHeads: shape.attentionHeads,
    memoryBytes: H20.memoryBytes,
    localGpus,
    environment: {},
  })
  const vllm = (line: string, shape: Architecture, gpus: number) => {
    const command = readVllm(line.split(' '), facts(shape, gpus))
    if (!command.ok) throw new Error(command.message)
    return planMemory(shape, H20.memoryBytes, command.settings)
  }
  const sglang = (line: string, shape: Architecture, gpus: number) => {
    const command = readSglang(line.split(' '), facts(shape, gpus))
    if (!command.ok) throw new Error(command.message)
    return planMemory(shape, H20.memoryBytes, command.settings)
  }

  test('QwQ on one H20: 94 to 102 thousand tokens in bf16, twice that in fp8', () => {
    const plain = vllm('q --max-model-len 32768', QWQ, 1).poolTokens
    expect(plain).toBeGreaterThanOrEqual(94_000)
    expect(plain).toBeLessThanOrEqual(102_000)
    const fp8 = vllm('q --max-model-len 32768 --kv-cache-dtype fp8', QWQ, 1).poolTokens
    expect(fp8 / plain).toBeCloseTo(2, 2)
  })

  test('R1 on 2x8 H20: 0.60 to 0.65 M at TP16, 1.15 to 1.3 M at TP8xPP2', () => {
    const wide = vllm('r --tensor-parallel-size 16 --nnodes 2', R1, 8)
    expect(wide.poolTokens).toBeGreaterThan(600_000)
    expect(wide.poolTokens).toBeLessThan(660_000)
    expect(wide.weightsBytes / 2 ** 30).toBeCloseTo(40.2, 0)
    const deep = vllm('r -tp 8 -pp 2 --nnodes 2', R1, 8).poolTokens
    expect(deep).toBeGreaterThan(1_150_000)
    expect(deep).toBeLessThan(1_300_000)
  })

  test('R1 on one node: SGLang starts at 0.95, not at 0.82', () => {
    expect(sglang('--model r --tp 8 --mem-fraction-static 0.82', R1, 8).poolTokens).toBe(0)
    expect(sglang('--model r --tp 8 --mem-fraction-static 0.95', R1, 8).poolTokens).toBeGreaterThan(
      0,
    )
  })
})
