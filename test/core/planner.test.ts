import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { runtimes } from '../../runtimes/index.ts'
import type { NodeSpec } from '../../src/core/inventory.ts'
import type { Deployment } from '../../src/core/manifest.ts'
import type { Container, NodeObservation } from '../../src/core/observed.ts'
import type { Plan, PlannedReplica } from '../../src/core/plan.ts'
import {
  applied,
  deploymentOf,
  nodeOf,
  observe,
  planOf,
  QWQ,
  R1,
  runningOf,
  THREE,
  unreachable,
} from '../support/plans.ts'

const replicaOf = (plan: Plan, id: string): PlannedReplica => {
  const found = plan.deployments.flatMap(({ replicas }) => replicas).find((one) => one.id === id)
  if (found === undefined) throw new Error(`${id} is not in the plan`)
  return found
}
const places = (replica: PlannedReplica) =>
  replica.ranks.map(({ node, gpus }) => `${node}[${gpus}]`).join(' ')

const first = planOf(THREE, [QWQ, R1])
const fleet = applied(first)
const change = (pick: (one: Container) => boolean, to: Partial<Container>): readonly Container[] =>
  fleet.map((one) => (pick(one) ? { ...one, ...to } : one))
const isRank = (deployment: string, rank: number) => (one: Container) =>
  one.labels.deployment === deployment && one.labels.rank === rank

describe('what runs stays', () => {
  it('a plan that was applied leaves nothing to do', () => {
    const again = planOf(THREE, [QWQ, R1], observe(THREE, fleet))
    expect(again.actions).toEqual([])
    expect(again.unchanged).toEqual(['qwq-32b/0', 'deepseek-r1/0'])
    expect(replicaOf(again, 'deepseek-r1/0').ranks).toEqual(replicaOf(first, 'deepseek-r1/0').ranks)
  })

  it('where it is, even if placement would choose otherwise now', () => {
    const nodes = [nodeOf('a'), nodeOf('b')]
    const start = planOf([nodeOf('b')], [QWQ])
    const fuller = deploymentOf('other', { replicas: 3, nodes: ['a'] })
    const plan = planOf(nodes, [QWQ, fuller], observe(nodes, applied(start)))
    expect(places(replicaOf(plan, 'qwq-32b/0'))).toBe('b[0]')
    expect(plan.unchanged).toEqual(['qwq-32b/0'])
    expect(plan.actions.map(({ id }) => id)).toEqual(['other/0', 'other/1', 'other/2'])
  })

  it('holds its GPUs on a node that cannot be reached', () => {
    const seen = unreachable(observe(THREE, fleet), 'h20-8b')
    const more = { ...QWQ, name: 'more', nodes: ['h20-8b'] }
    const plan = planOf(THREE, [QWQ, R1, more], seen)
    expect(plan.unchanged).toEqual(['qwq-32b/0', 'deepseek-r1/0'])
    expect(plan.deployments[2]?.unplaced[0]?.reasons.join()).toContain('h20-8b: unreachable')
  })

  it('is not moved for a change that a node out of reach cannot take', () => {
    const seen = unreachable(observe(THREE, fleet), 'h20-8b')
    const plan = planOf(THREE, [QWQ, { ...R1, context: 32_768 }], seen)
    expect(plan.actions).toHaveLength(1)
    expect(plan.actions[0]).toMatchObject({ kind: 'replace', id: 'deepseek-r1/0' })
    expect(plan.actions[0]?.reason).toContain('waits for h20-8b, which cannot be reached')
    expect(places(replicaOf(plan, 'deepseek-r1/0'))).toBe(places(replicaOf(first, 'deepseek-r1/0')))
  })
})

describe('what is missing of it is started, at the same place', () => {
  it('a rank that exited', () => {
    const dead = change(isRank('deepseek-r1', 1), { state: 'exited', exitCode: 137 })
    const plan = planOf(THREE, [QWQ, R1], observe(THREE, dead))
    expect(plan.actions).toEqual([
      {
        kind: 'start',
        id: 'deepseek-r1/0',
        reason: 'rank 1 on h20-8b exited with code 137 (SIGKILL: killed, or out of memory)',
      },
    ])
    expect(replicaOf(plan, 'deepseek-r1/0').ranks).toEqual(replicaOf(first, 'deepseek-r1/0').ranks)
  })

  it('a rank that is gone without a trace', () => {
    const left = fleet.filter((one) => !isRank('deepseek-r1', 1)(one))
    const plan = planOf(THREE, [QWQ, R1], observe(THREE, left))
    expect(plan.actions).toEqual([
      { kind: 'start', id: 'deepseek-r1/0', reason: 'rank 1 on h20-8b is gone' },
    ])
    expect(replicaOf(plan, 'deepseek-r1/0').ranks).toEqual(replicaOf(first, 'deepseek-r1/0').ranks)
  })

  it('a rank that may run on a node out of sight is not started elsewhere', () => {
    const nodes = [...THREE, nodeOf('h20-8c', { address: '10.0.0.23' })]
    const left = fleet.filter((one) => !isRank('deepseek-r1', 1)(one))
    const plan = planOf(nodes, [QWQ, R1], unreachable(observe(nodes, left), 'h20-8b'))
    expect(places(replicaOf(plan, 'deepseek-r1/0'))).toContain('h20-8b[0,1,2,3,4,5,6,7]')
    expect(plan.actions[0]?.reason).toContain('waits for h20-8b')
    const visible = planOf(nodes, [QWQ, R1], observe(nodes, left))
    expect(places(replicaOf(visible, 'deepseek-r1/0'))).toContain('h20-8b')
  })
})

describe('what is wanted otherwise is replaced', () => {
  it('at the same GPUs when they still serve', () => {
    const plan = planOf(THREE, [QWQ, { ...R1, context: 32_768 }], observe(THREE, fleet))
    expect(plan.actions).toHaveLength(1)
    expect(plan.actions[0]?.kind).toBe('replace')
    const [was, now] = [first, plan].map((one) => replicaOf(one, 'deepseek-r1/0'))
    expect(plan.actions[0]?.reason).toBe(
      `spec changed (hash ${was?.specHash.slice(0, 8)} -> ${now?.specHash.slice(0, 8)})`,
    )
    expect(plan.unchanged).toEqual(['qwq-32b/0'])
  })

  it('says what the labels tell', () => {
    const other = { ...QWQ, engine: 'sglang' as const }
    const plan = planOf(THREE, [other, R1], observe(THREE, fleet))
    expect(plan.actions[0]?.reason).toContain('engine vllm -> sglang (hash ')
  })

  it('elsewhere when its place no longer serves', () => {
    const moved = { ...QWQ, nodes: ['h20-8a'] }
    const only = planOf(THREE, [QWQ])
    const plan = planOf(THREE, [moved], observe(THREE, applied(only)))
    expect(plan.actions).toEqual([
      {
        kind: 'replace',
        id: 'qwq-32b/0',
        reason: 'its place no longer serves: h20-1[0] -> h20-8a[0]',
      },
    ])
  })

  it('on more GPUs around its own, which are free to itself', () => {
    const node = nodeOf('a', { gpus: { profile: 'h20-96g', count: 2 } })
    const before = planOf([node], [QWQ])
    const wide = { ...QWQ, parallel: { nodes: 1, tensor: 2, pipeline: 1 } }
    const plan = planOf([node], [wide], observe([node], applied(before)))
    expect(places(replicaOf(plan, 'qwq-32b/0'))).toBe('a[0,1]')
    expect(plan.actions.map(({ kind }) => kind)).toEqual(['replace'])
  })

  it('GPUs that it leaves are not given away before it has left them', () => {
    const nodes = [
      nodeOf('a', { gpus: { profile: 'h20-96g', count: 1 } }),
      nodeOf('b', { gpus: { profile: 'h20-96g', count: 1 } }),
    ]
    const before = planOf(nodes, [{ ...QWQ, nodes: ['a'] }])
    const next = deploymentOf('next', { nodes: ['a'] })
    const plan = planOf(nodes, [{ ...QWQ, nodes: ['b'] }, next], observe(nodes, applied(before)))
    expect(places(replicaOf(plan, 'qwq-32b/0'))).toBe('b[0]')
    expect(plan.deployments[1]?.unplaced[0]?.reasons.join()).toContain('held by qwq-32b/0')
  })

  it('a rank that runs twice', () => {
    const [rank] = replicaOf(first, 'qwq-32b/0').ranks
    if (rank === undefined) throw new Error('one rank')
    const labels = { ...rank.labels, node: 'h20-8a', gpus: [0] }
    const lone = planOf(THREE, [QWQ])
    const double = [...applied(lone), runningOf({ ...rank, node: 'h20-8a', labels })]
    const plan = planOf(THREE, [QWQ], observe(THREE, double))
    expect(plan.actions).toEqual([
      { kind: 'replace', id: 'qwq-32b/0', reason: 'rank 0 is on h20-1 and on h20-8a' },
    ])
  })
})

describe('what is not wanted is stopped', () => {
  it('removed from the manifests, or fewer replicas', () => {
    const two = { ...QWQ, replicas: 2 }
    const nodes = [nodeOf('a')]
    const before = planOf(nodes, [two, deploymentOf('old')])
    const plan = planOf(nodes, [QWQ], observe(nodes, applied(before)))
    expect(plan.actions).toEqual([
      { kind: 'stop', id: 'old/0', reason: 'no longer in the manifests' },
      { kind: 'stop', id: 'qwq-32b/1', reason: 'replicas is 1, this is number 2' },
    ])
    expect(plan.unchanged).toEqual(['qwq-32b/0'])
  })

  it('its GPUs come free, but not within the plan that stops it', () => {
    const node = nodeOf('a', { gpus: { profile: 'h20-96g', count: 1 } })
    const before = planOf([node], [deploymentOf('old')])
    const plan = planOf([node], [QWQ], observe([node], applied(before)))
    expect(plan.actions.map(({ kind, id }) => `${kind} ${id}`)).toEqual(['stop old/0'])
    expect(plan.deployments[0]?.unplaced[0]?.reasons).toEqual([
      'a: 0 of 1 free, 1 needed: GPU 0 held by old/0, which this plan stops',
    ])
  })
})

describe('refusals', () => {
  it('R1 on one node of eight: the sum, and what would fit', () => {
    const single = { ...R1, parallel: { nodes: 1, tensor: 8, pipeline: 1 } }
    const [deployment] = planOf(THREE, [single]).deployments
    expect(deployment?.fit.ok).toBe(false)
    expect(deployment?.refusals[0]).toContain('leaves 3.5 GiB at 68.6 KiB a token')
    expect(deployment?.refusals.join('\n')).toContain(
      'would fit with parallel: { nodes: 2, tensor: 16, pipeline: 1 }',
    )
    expect(deployment?.replicas).toEqual([])
    expect(planOf(THREE, [single]).actions).toEqual([])
  })

  it('contradicting arguments', () => {
    const plan = planOf(THREE, [{ ...QWQ, extraArguments: ['--port', '9000'] }])
    expect(plan.deployments[0]?.refusals).toEqual(['"--port": Penstock gives out addresses'])
  })

  it('a model whose shape nobody knows', () => {
    const odd = deploymentOf('odd', { weights: { huggingface: 'some/Model' } })
    expect(planOf(THREE, [odd]).deployments[0]?.refusals[0]).toContain('give `architecture`')
  })

  it('no node with GPUs at all', () => {
    const cpu = nodeOf('cpu', { gpus: undefined, device: 'cpu' })
    expect(planOf([cpu], [QWQ]).deployments[0]?.refusals[0]).toContain('no node of the inventory')
  })

  it('what runs is kept, and the plan says so', () => {
    const long = { ...QWQ, context: 131_072 }
    const plan = planOf(THREE, [long, R1], observe(THREE, fleet))
    const kept = replicaOf(plan, 'qwq-32b/0')
    expect(plan.actions).toEqual([])
    expect(plan.unchanged).toContain('qwq-32b/0')
    expect(kept.reason).toBe('keeps running as it is: the manifest is refused now')
    expect(kept.specHash).toBe(replicaOf(first, 'qwq-32b/0').specHash)
    expect(plan.deployments[0]?.refusals).not.toEqual([])
  })

  it('also when what is wanted now has no place', () => {
    const wide = { ...QWQ, nodes: ['h20-1'], parallel: { nodes: 1, tensor: 2, pipeline: 1 } }
    const plan = planOf(THREE, [wide, R1], observe(THREE, fleet))
    expect(replicaOf(plan, 'qwq-32b/0').reason).toContain('what is wanted now has no place')
    expect(plan.deployments[0]?.unplaced[0]?.reasons.join()).toContain('has 1 h20-96g GPU')
    expect(plan.actions).toEqual([])
  })
})

/** Small fleets of every shape, with deployments that may or may not find a place. */
const names = ['a', 'b', 'c', 'd', 'e', 'f']
const fleets = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom(...names),
    count: fc.constantFrom(1, 2, 4, 8),
    profile: fc.constantFrom('h20-96g', 'h20-141g', 'a100-80g'),
    fabric: fc.boolean(),
  }),
  { selector: ({ name }) => name, minLength: 1, maxLength: 6 },
)
const wishes = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('p', 'q', 'r', 's'),
    nodes: fc.constantFrom(1, 1, 2),
    tensor: fc.constantFrom(2, 4, 8),
    replicas: fc.integer({ min: 0, max: 4 }),
    context: fc.constantFrom(16_384, 65_536),
    engine: fc.constantFrom('vllm' as const, 'sglang' as const),
  }),
  { selector: ({ name }) => name, maxLength: 4 },
)
type Fleet = typeof fleets extends fc.Arbitrary<infer T> ? T : never
type Wishes = typeof wishes extends fc.Arbitrary<infer T> ? T : never

const nodesOf = (given: Fleet): readonly NodeSpec[] =>
  given.map(({ name, count, profile, fabric }) =>
    nodeOf(name, { gpus: { profile, count }, ...(fabric ? {} : { fabric: undefined }) }),
  )
const deploymentsOf = (given: Wishes): readonly Deployment[] =>
  given.map(({ name, nodes, tensor, ...rest }) =>
    deploymentOf(name, { ...rest, parallel: { nodes, tensor } }),
  )
const shuffled = <T>(list: readonly T[], seed: number): readonly T[] =>
  list
    .map((item, index) => ({ item, key: (index * 7919 + seed * 104_729) % 1009 }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ item }) => item)

const expectSound = (nodes: readonly NodeSpec[], plan: Plan): void => {
  const taken = new Set<string>()
  const sizes = new Map(nodes.map(({ name, gpus }) => [name, gpus?.count ?? 0]))
  for (const { replicas } of plan.deployments) {
    for (const { ranks } of replicas) {
      expect(new Set(ranks.map(({ node }) => node)).size).toBe(ranks.length)
      for (const { node, gpus } of ranks) {
        for (const gpu of gpus) {
          expect(gpu).toBeLessThan(sizes.get(node) ?? 0)
          expect(taken).not.toContain(`${node}/${gpu}`)
          taken.add(`${node}/${gpu}`)
        }
      }
    }
  }
}

describe('for every fleet', () => {
  it('no GPU is given twice, and every wanted replica is placed or has its reasons', () => {
    fc.assert(
      fc.property(fleets, wishes, (fleetGiven, wished) => {
        const nodes = nodesOf(fleetGiven)
        const plan = planOf(nodes, deploymentsOf(wished))
        expectSound(nodes, plan)
        for (const [at, { replicas, unplaced, refusals }] of plan.deployments.entries()) {
          const wanted = wished[at]?.replicas ?? 0
          const told = refusals.length > 0 ? 0 : wanted
          expect(replicas.length + unplaced.length).toBe(told)
          if (unplaced.length > 0 && refusals.length === 0) {
            expect(unplaced[0]?.reasons.length).toBe(nodes.length)
          }
        }
      }),
    )
  })

  it('applied, it yields an empty plan; and the order of the files does not matter', () => {
    fc.assert(
      fc.property(fleets, wishes, fc.nat(100), (fleetGiven, wished, seed) => {
        const [nodes, wants] = [nodesOf(fleetGiven), deploymentsOf(wished)]
        const plan = planOf(nodes, wants)
        const again = planOf(nodes, wants, observe(nodes, applied(plan)))
        expect(again.actions).toEqual([])
        expect(again.unchanged.length).toBe(
          plan.deployments.reduce((sum, { replicas }) => sum + replicas.length, 0),
        )
        const other = planOf(shuffled(nodes, seed), wants, shuffled(observe(nodes), seed))
        expect(other).toEqual(plan)
      }),
    )
  })

  it('changed and applied again and again, it stays sound and comes to rest', () => {
    fc.assert(
      fc.property(fleets, fc.array(wishes, { minLength: 2, maxLength: 4 }), (given, rounds) => {
        const nodes = nodesOf(given)
        let running: readonly Container[] = []
        for (const wished of rounds) {
          const wants = deploymentsOf(wished)
          // Stops free GPUs for the next plan; two rounds place what can be placed.
          for (let round = 0; round < 3; round += 1) {
            const plan = planOf(nodes, wants, observe(nodes, running))
            expectSound(nodes, plan)
            running = applied(plan)
          }
          expect(planOf(nodes, wants, observe(nodes, running)).actions).toEqual([])
        }
      }),
      { numRuns: 50 },
    )
  })

  it('any container may be dead or gone: what is planned is sound, and nothing else is touched', () => {
    fc.assert(
      fc.property(fleets, wishes, fc.infiniteStream(fc.nat(3)), (given, wished, luck) => {
        const [nodes, wants] = [nodesOf(given), deploymentsOf(wished)]
        const whole = applied(planOf(nodes, wants))
        const hurt = new Set<string>()
        const left = whole.flatMap((one): readonly Container[] => {
          const fate = luck.next().value
          if (fate > 1) return [one]
          hurt.add(`${one.labels.deployment}/${one.labels.replica}`)
          return fate === 1 ? [] : [{ ...one, state: 'exited', exitCode: 1 }]
        })
        const plan = planOf(nodes, wants, observe(nodes, left))
        expectSound(nodes, plan)
        expect(new Set(plan.actions.map(({ id }) => id))).toEqual(hurt)
      }),
    )
  })
})

describe('at size', () => {
  it('1,000 nodes of eight GPUs and 200 deployments: all placed, none twice', () => {
    const nodes = Array.from({ length: 1000 }, (_, at) =>
      nodeOf(`n${String(at).padStart(4, '0')}`, { address: `10.1.${at >> 8}.${at & 255}` }),
    )
    const deployments = Array.from({ length: 200 }, (_, at) =>
      at % 10 === 0
        ? { ...R1, name: `r1-${at}`, replicas: 2 }
        : { ...QWQ, name: `qwq-${at}`, replicas: 20 },
    )
    const observed: readonly NodeObservation[] = observe(nodes)
    const plan = planOf(nodes, deployments, observed)
    expectSound(nodes, plan)
    expect(plan.actions).toHaveLength(20 * 2 + 180 * 20)
    expect(plan.deployments.flatMap(({ unplaced }) => unplaced)).toEqual([])
    const again = planOf(nodes, deployments, observe(nodes, applied(plan)))
    expect(again.actions).toEqual([])
    expect(again.unchanged).toHaveLength(3640)
  })
})

describe('every engine of the schema has a runtime of its name', () => {
  it.each(['vllm', 'sglang'] as const)('%s', (engine) => {
    expect(runtimes[engine].name).toBe(engine)
  })
})
