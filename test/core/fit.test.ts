import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { architectureOf } from '../../src/core/catalogue.ts'
import { fitOf } from '../../src/core/fit.ts'
import type { Architecture } from '../../src/core/manifest.ts'
import { kvBytesPerToken, weightBytesPerGpu } from '../../src/core/memory.ts'
import type { FitAsk } from '../../src/core/sum.ts'
import { GIB } from '../../src/core/units.ts'
import { A100, H20, H20_141, L20, PROFILES, QWQ, R1 } from '../support/plans.ts'

const shape = (deployment: typeof QWQ): Architecture => {
  const architecture = architectureOf(deployment)
  if (architecture === null) throw new Error('the catalogue lost a model')
  return architecture
}
const [qwq, r1] = [shape(QWQ), shape(R1)]

const ask = (changes: Partial<FitAsk>): FitAsk => ({
  architecture: qwq,
  profile: H20,
  parallel: { nodes: 1, tensor: 1, pipeline: 1 },
  context: 65_536,
  kvCache: 'auto',
  memoryFraction: 0.92,
  overheadBytes: 1.5 * GIB,
  gpusPerNode: 8,
  otherProfiles: [...PROFILES.values()],
  ...changes,
})
const TP16 = { nodes: 2, tensor: 16, pipeline: 1 }
const TP8 = { nodes: 1, tensor: 8, pipeline: 1 }
const TP8PP2 = { nodes: 2, tensor: 8, pipeline: 2 }

/** Within 5 % of a range of the shared facts, section 6. */
const within = (value: number, from: number, to: number) => {
  expect(value).toBeGreaterThanOrEqual(from * 0.95)
  expect(value).toBeLessThanOrEqual(to * 1.05)
}

describe('figures of the facts, within 5 %', () => {
  it.each([
    ['QwQ on one GPU', qwq, { nodes: 1, tensor: 1, pipeline: 1 }, 61.03],
    ['R1 tensor 8, measured 79.41', r1, TP8, 79.41],
    ['R1 tensor 16', r1, TP16, 40.2],
    ['R1 tensor 8 x pipeline 2', r1, TP8PP2, 40.2],
  ])('weights per GPU: %s', (_, architecture, parallel, gib) => {
    within(weightBytesPerGpu(architecture, parallel) / GIB, gib, gib)
  })

  it.each([
    ['QwQ', qwq, { nodes: 1, tensor: 1, pipeline: 1 }, 'auto', 262_144],
    ['QwQ fp8', qwq, { nodes: 1, tensor: 1, pipeline: 1 }, 'fp8', 131_072],
    ['QwQ tensor 4', qwq, { nodes: 1, tensor: 4, pipeline: 1 }, 'auto', 65_536],
    // 8 KV heads: a rank keeps at least one.
    ['QwQ tensor 20', qwq, { nodes: 4, tensor: 20, pipeline: 1 }, 'auto', 32_768],
    ['R1', r1, TP16, 'auto', 70_272],
    ['R1 fp8', r1, TP16, 'fp8', 35_136],
    // 61 layers in two stages: 31 and 30.
    ['R1 pipeline 2', r1, TP8PP2, 'auto', 35_712],
  ] as const)('KV bytes of a token per GPU: %s', (_, architecture, parallel, kvCache, bytes) => {
    expect(kvBytesPerToken(architecture, parallel, kvCache)).toBe(bytes)
  })

  it('QwQ on one H20: 94 to 102 thousand tokens', () => {
    const fit = fitOf(ask({}))
    expect(fit).toMatchObject({ ok: true, reasons: [], remedies: [], profile: 'h20-96g' })
    within(fit.kvPoolTokens, 94_000, 102_000)
    expect(fit.fullContextRequests).toBe(1.49)
  })

  it('R1 on 2x8 H20, tensor 16: 0.60 to 0.65 million tokens', () => {
    const fit = fitOf(ask({ architecture: r1, parallel: TP16 }))
    expect(fit.ok).toBe(true)
    within(fit.kvPoolTokens, 600_000, 650_000)
  })

  it('R1 on 2x8 H20, tensor 8 x pipeline 2: 1.2 to 1.3 million tokens', () => {
    const fit = fitOf(ask({ architecture: r1, parallel: TP8PP2 }))
    expect(fit.ok).toBe(true)
    within(fit.kvPoolTokens, 1_200_000, 1_300_000)
  })
})

describe('refusals show the sum and what was tried out', () => {
  it('R1 on one node of eight H20', () => {
    const fit = fitOf(ask({ architecture: r1, parallel: TP8 }))
    expect(fit.ok).toBe(false)
    within(fit.kvPoolTokens, 45_000, 60_000)
    expect(fit.reasons).toEqual([
      'the KV pool holds 53,015 tokens, one request of full context needs 65,536: ' +
        '0.92 x 95.6 GiB = 87.9 GiB per GPU, less 79.1 GiB weights, less 5.3 GiB overhead, ' +
        'leaves 3.5 GiB at 68.6 KiB a token',
    ])
    expect(fit.remedies).toEqual([
      'context: 52224 or less',
      'kvCache: fp8; the pool then holds 106,030 tokens',
      'memoryFraction: 0.93; the pool then holds 67,619 tokens',
      'parallel: { nodes: 2, tensor: 16, pipeline: 1 }, 2 nodes with 8 such GPUs each; the pool then holds 643,255 tokens',
      'parallel: { nodes: 2, tensor: 8, pipeline: 2 }, 2 nodes with 8 such GPUs each; the pool then holds 1,259,191 tokens',
      'GPUs of profile h20-141g (140.4 GiB); the pool then holds 683,127 tokens',
    ])
  })

  it('QwQ at 131,072 tokens in bf16', () => {
    const fit = fitOf(ask({ context: 131_072 }))
    expect(fit.ok).toBe(false)
    expect(fit.reasons[0]).toContain('one request of full context needs 131,072')
    expect(fit.remedies).toContain('context: 97280 or less')
    expect(fit.remedies).toContain('kvCache: fp8; the pool then holds 196,585 tokens')
    expect(fit.remedies.join()).toContain('{ nodes: 1, tensor: 2, pipeline: 1 }')
    expect(fit.remedies.join()).not.toContain('memoryFraction')
  })

  it('weights larger than the budget: no context is offered', () => {
    const fit = fitOf(ask({ profile: L20 }))
    expect(fit.kvBytesPerGpu).toBeLessThan(0)
    expect(fit.kvPoolTokens).toBe(0)
    expect(fit.reasons[0]).toContain('leave no room for a KV cache: 0.92 x 45.0 GiB = 41.4 GiB')
    expect(fit.remedies.some((line) => line.startsWith('context'))).toBe(false)
    expect(fit.remedies.join()).toContain(
      '{ nodes: 1, tensor: 4, pipeline: 1 }, 4 GPUs of one node',
    )
    expect(fit.remedies.join()).toContain('GPUs of profile h20-96g')
  })

  it('does not offer fp8 where the GPU has no fp8 units', () => {
    const fit = fitOf(ask({ profile: A100, context: 131_072 }))
    expect(fit.remedies.join()).not.toContain('fp8')
  })

  it('heads that do not divide, stages without layers, too long a context', () => {
    const heads = fitOf(ask({ parallel: { nodes: 2, tensor: 16, pipeline: 1 } }))
    expect(heads.reasons).toEqual(["the model's 40 attention heads do not divide over tensor 16"])
    expect(heads.remedies[0]).toContain('{ nodes: 2, tensor: 8, pipeline: 2 }')
    const stages = fitOf(ask({ architecture: r1, parallel: { nodes: 8, tensor: 1, pipeline: 64 } }))
    expect(stages.reasons).toEqual(["pipeline 64 exceeds the model's 61 layers"])
    const long = fitOf(ask({ context: 200_000, profile: H20_141 }))
    expect(long.reasons).toEqual(["context 200,000 exceeds the model's 131,072"])
    expect(long.remedies).toContain('context: 131072 or less')
    const uneven = fitOf(ask({ parallel: { nodes: 3, tensor: 4, pipeline: 1 } }))
    expect(uneven.reasons).toEqual(['tensor 4 x pipeline 1 = 4 GPUs, not a multiple of 3 nodes'])
  })
})

const asks = fc.record({
  architecture: fc.constantFrom(qwq, r1),
  profile: fc.constantFrom(...PROFILES.values()),
  parallel: fc.record({
    nodes: fc.constantFrom(1, 2, 4),
    tensor: fc.constantFrom(1, 2, 4, 8, 16),
    pipeline: fc.constantFrom(1, 2, 3, 4),
  }),
  context: fc.integer({ min: 1024, max: 200_000 }),
  kvCache: fc.constantFrom('auto' as const, 'fp8' as const),
  memoryFraction: fc.constantFrom(0.8, 0.9, 0.92, 0.95),
})

describe('for every ask', () => {
  it('the terms add up to the budget', () => {
    fc.assert(
      fc.property(asks, (changes) => {
        const fit = fitOf(ask(changes))
        const overhead = fit.overhead.reduce((sum, { bytes }) => sum + bytes, 0)
        expect(fit.weightsBytesPerGpu + overhead + fit.kvBytesPerGpu).toBe(fit.budgetBytes)
        expect(fit.ok).toBe(fit.reasons.length === 0)
        expect(Number.isSafeInteger(fit.kvPoolTokens)).toBe(true)
      }),
    )
  })

  it('what a remedy promises is what the fit says when it is followed', () => {
    fc.assert(
      fc.property(asks, (changes) => {
        const given = ask(changes)
        for (const line of fitOf(given).remedies) {
          const followed = follow(given, line)
          const fit = fitOf(followed.ask)
          expect({ line, reasons: fit.reasons }).toEqual({ line, reasons: [] })
          if (followed.pool !== null) expect(fit.kvPoolTokens).toBe(followed.pool)
        }
      }),
    )
  })
})

/** Read a remedy as an operator would, and change the manifest accordingly. */
const follow = (given: FitAsk, line: string): { ask: FitAsk; pool: number | null } => {
  const number = (pattern: RegExp): number | null => {
    const found = pattern.exec(line)?.[1]
    return found === undefined ? null : Number(found.replaceAll(',', ''))
  }
  const context = Math.min(
    number(/context: (\d+) or less/) ?? given.context,
    given.architecture.maxContext,
  )
  const [nodes, tensor] = [number(/nodes: (\d+)/), number(/tensor: (\d+)/)]
  const pipeline = number(/pipeline: (\d+)/)
  const parallel =
    nodes === null || tensor === null || pipeline === null
      ? given.parallel
      : { nodes, tensor, pipeline }
  const profile = PROFILES.get(/profile (\S+)/.exec(line)?.[1] ?? '') ?? given.profile
  const memoryFraction = number(/memoryFraction: ([\d.]+)/) ?? given.memoryFraction
  const kvCache = line.includes('kvCache: fp8') ? ('fp8' as const) : given.kvCache
  return {
    ask: { ...given, context, parallel, profile, memoryFraction, kvCache },
    pool: number(/holds ([\d,]+) tokens/),
  }
}
