import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { choose } from '../../src/core/occupancy.ts'
import type { Plan } from '../../src/core/plan.ts'
import { deploymentOf, nodeOf, observe, planOf, QWQ, R1, THREE } from '../support/plans.ts'

const seats = (plan: Plan): readonly string[] =>
  plan.deployments.flatMap(({ replicas }) =>
    replicas.map(({ id, ranks }) =>
      [id, ...ranks.map(({ node, gpus }) => `${node}[${gpus}]`)].join(' '),
    ),
  )

const rejected = (plan: Plan, deployment: string): Record<string, string> =>
  Object.fromEntries(
    plan.deployments
      .filter(({ name }) => name === deployment)
      .flatMap(({ replicas }) => replicas[0]?.rejected ?? [])
      .map(({ node, reason }) => [node, reason]),
  )

const reasonsOf = (plan: Plan): readonly string[] =>
  plan.deployments.flatMap(({ unplaced }) => unplaced.flatMap(({ reasons }) => reasons))

describe('which GPUs of a node', () => {
  const row = (text: string) => [...text].map((one) => (one === '.' ? null : 'x/0'))
  it.each([
    ['........', 1, [0]],
    ['x.......', 1, [1]],
    // The pair that is broken already is used up before a whole one is broken.
    ['x...x...', 2, [2, 3]],
    ['....x...', 1, [5]],
    ['..x.....', 2, [0, 1]],
    ['.x......', 4, [4, 5, 6, 7]],
    // No aligned pair is left, but neighbours are.
    ['x..xx..x', 2, [1, 2]],
    // Not even neighbours.
    ['.x.x.x.x', 2, [0, 2]],
    ['xxxxxxxx', 1, null],
    ['.......', 8, null],
    ['......', 3, [0, 1, 2]],
  ])('%s, %i of them', (text, count, expected) => {
    expect(choose(row(text), count)).toEqual(expected)
  })

  it('gives as many as asked, free ones, each once', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(null, 'x/0'), { minLength: 1, maxLength: 16 }),
        fc.integer({ min: 1, max: 16 }),
        (holders, count) => {
          const chosen = choose(holders, count)
          const free = holders.filter((one) => one === null).length
          expect(chosen === null).toBe(free < count)
          expect(new Set(chosen).size).toBe(chosen === null ? 0 : count)
          for (const index of chosen ?? []) expect(holders[index]).toBeNull()
        },
      ),
    )
  })
})

describe('the README: QwQ and R1 on 1 + 2x8 H20', () => {
  const plan = planOf(THREE, [QWQ, R1])

  it('QwQ takes the single GPU, R1 the two whole machines', () => {
    expect(seats(plan)).toEqual([
      'qwq-32b/0 h20-1[0]',
      'deepseek-r1/0 h20-8a[0,1,2,3,4,5,6,7] h20-8b[0,1,2,3,4,5,6,7]',
    ])
    expect(plan.actions.map(({ kind, id }) => `${kind} ${id}`)).toEqual([
      'start qwq-32b/0',
      'start deepseek-r1/0',
    ])
  })

  it('says why, and why not elsewhere', () => {
    const [qwq, r1] = plan.deployments.flatMap(({ replicas }) => replicas)
    expect(qwq?.reason).toBe('h20-1 GPU 0 of 1 free: leaves the fewest GPUs free')
    expect(r1?.reason).toBe(
      'h20-8a GPU 0-7 of 8 free, h20-8b GPU 0-7 of 8 free: alike and joined by a fabric',
    )
    expect(rejected(plan, 'qwq-32b')).toEqual({
      'h20-8a': '0 of 8 free, 1 needed: GPU 0-7 held by deepseek-r1/0',
      'h20-8b': '0 of 8 free, 1 needed: GPU 0-7 held by deepseek-r1/0',
    })
    expect(rejected(plan, 'deepseek-r1')).toEqual({
      'h20-1': 'has 1 h20-96g GPU, 8 needed on each node',
    })
  })
})

describe('a reason for each node that was not taken', () => {
  const two = { ...R1, name: 'pair' }
  it.each([
    ['fabric', nodeOf('b', { fabric: undefined }), 'no `fabric` declared'],
    [
      'profile too small',
      nodeOf('b', { gpus: { profile: 'l20', count: 8 } }),
      'l20 is too small: no room',
    ],
    [
      'profile unknown',
      nodeOf('b', { gpus: { profile: 'b300', count: 8 } }),
      'GPU profile b300 is not known',
    ],
    ['no GPUs', nodeOf('b', { gpus: undefined }), 'no GPUs declared'],
    ['cpu', nodeOf('b', { gpus: undefined, device: 'cpu' }), 'a cpu node: used only when'],
    [
      'other kind',
      nodeOf('b', { gpus: { profile: 'h20-141g', count: 8 } }),
      'free, but 2 free nodes of one kind (h20-141g)',
    ],
    [
      'rehearsed',
      nodeOf('b', { rehearse: true }),
      'free, but 2 free nodes of one kind (h20-96g, rehearsed)',
    ],
  ])('%s', (_, other, reason) => {
    const plan = planOf([nodeOf('a'), other], [two])
    expect(seats(plan)).toEqual([])
    expect(reasonsOf(plan).find((line) => line.startsWith('b: '))).toContain(reason)
    expect(reasonsOf(plan).find((line) => line.startsWith('a: '))).toContain('free, but 2')
    expect(plan.actions).toEqual([])
  })

  it('not listed, not seen yet, not reachable', () => {
    const nodes = ['a', 'b', 'c'].map((name) => nodeOf(name))
    const listed = { ...QWQ, nodes: ['b', 'c'] }
    const [, b] = observe(nodes)
    if (b === undefined) throw new Error('three nodes give three observations')
    const plan = planOf(nodes, [listed], [{ ...b, reachable: false, reason: 'connect: refused' }])
    expect(reasonsOf(plan)).toEqual([
      'a: not in `nodes` of the manifest',
      'b: unreachable: connect: refused',
      'c: not observed yet',
    ])
  })

  it('a relative path needs a directory to be below', () => {
    const local = deploymentOf('local', {
      weights: { path: 'tiny' },
      architecture,
      context: 1024,
      nodes: ['a'],
    })
    const plan = planOf([nodeOf('a', { weights: undefined })], [local])
    expect(reasonsOf(plan)).toEqual(['a: weights.path is relative and the node has no `weights`'])
  })

  it('tells where downloads go when the node names no directory', () => {
    const plan = planOf([nodeOf('a', { weights: undefined })], [QWQ])
    expect(plan.deployments[0]?.replicas[0]?.reason).toContain("Docker's volume penstock-cache")
  })
})

const architecture = {
  weightBytes: 2_000_000,
  parameters: 1_000_000,
  hiddenSize: 64,
  layers: 2,
  attentionHeads: 4,
  kvHeads: 2,
  headDimension: 16,
  vocabulary: 1000,
  maxContext: 2048,
}

describe('packing', () => {
  it('keeps machines whole: small replicas share one, a later large one still fits', () => {
    const nodes = ['a', 'b', 'c'].map((name) => nodeOf(name))
    const small = deploymentOf('small', { replicas: 8 })
    expect(seats(planOf(nodes, [small, R1])).toSorted()).toEqual([
      'deepseek-r1/0 a[0,1,2,3,4,5,6,7] b[0,1,2,3,4,5,6,7]',
      ...Array.from({ length: 8 }, (_, gpu) => `small/${gpu} c[${gpu}]`),
    ])
  })

  it('takes the smaller GPU that fits, so that the larger stays for those who need it', () => {
    const nodes = [
      nodeOf('big', { gpus: { profile: 'h20-141g', count: 1 } }),
      nodeOf('small', { gpus: { profile: 'h20-96g', count: 1 } }),
    ]
    expect(seats(planOf(nodes, [QWQ]))).toEqual(['qwq-32b/0 small[0]'])
    const long = { ...QWQ, context: 131_072 }
    const plan = planOf(nodes, [long])
    expect(seats(plan)).toEqual(['qwq-32b/0 big[0]'])
    expect(plan.deployments[0]?.fit.profile).toBe('h20-141g')
    expect(rejected(plan, 'qwq-32b').small).toBe(
      'h20-96g is too small: KV pool of 98,292 tokens, 131,072 needed',
    )
  })

  it('on a cpu node takes a slot and checks no fit, and only when named', () => {
    const cpu = nodeOf('cpu', { gpus: undefined, device: 'cpu', driver: 'process' })
    const tiny = deploymentOf('tiny', {
      weights: { path: '/models/tiny' },
      architecture,
      context: 1024,
      replicas: 2,
      nodes: ['cpu'],
    })
    const plan = planOf([cpu, ...THREE], [tiny])
    expect(seats(plan)).toEqual(['tiny/0 cpu[]', 'tiny/1 cpu[]'])
    const [one, two] = plan.deployments[0]?.replicas ?? []
    expect([one?.endpoint, two?.endpoint]).toEqual([
      'http://10.0.0.11:8100',
      'http://10.0.0.11:8101',
    ])
    expect(plan.deployments[0]?.fit).toMatchObject({ ok: true, reasons: ['not checked: cpu'] })
    expect(one?.ranks[0]?.gpus).toEqual([])
  })
})

describe('a long list of rejections', () => {
  it('is cut, and counts the rest', () => {
    const nodes = Array.from({ length: 120 }, (_, at) => nodeOf(`n${String(at).padStart(3, '0')}`))
    const [replica] = planOf(nodes, [QWQ]).deployments[0]?.replicas ?? []
    expect(replica?.rejected).toHaveLength(50)
    expect(replica?.rejected.at(-1)?.reason).toContain('(and 69 nodes more, not shown)')
  })
})
