import { describe, expect, it } from 'vitest'
import { Loop } from '../../src/control/loop.ts'
import { Nodes } from '../../src/control/nodes.ts'
import type { ProbeAnswer } from '../../src/control/probe.ts'
import { NodeSchema } from '../../src/core/inventory.ts'
import type { Plan, PlannedReplica } from '../../src/core/plan.ts'
import { Fleet } from '../../src/fleet.ts'
import { type ManualClock, manualClock } from '../support/clock.ts'
import { type FakeNode, fakeNode } from '../support/fake-driver.ts'
import { plannedReplica } from '../support/replicas.ts'
import { plainRuntimes } from '../support/runtime.ts'

const R1 = plannedReplica({ deployment: 'deepseek-r1', nodes: ['b', 'c'] })
const QWQ = plannedReplica({ deployment: 'qwq-32b', nodes: ['a'], engine: 'vllm' })
const TIMEOUTS = { readyMs: 60_000, drainMs: 20_000 }

const planOf = (replicas: readonly PlannedReplica[]): Plan => ({
  deployments: replicas.map((replica) => ({
    name: replica.deployment,
    engine: 'vllm',
    fit: {
      ok: true,
      profile: null,
      parallel: { nodes: 1, tensor: 1, pipeline: 1 },
      context: 1,
      overhead: [],
      memoryBytes: 0,
      memoryFraction: 0,
      budgetBytes: 0,
      weightsBytesPerGpu: 0,
      overheadBytesPerGpu: 0,
      kvBytesPerGpu: 0,
      kvBytesPerTokenPerGpu: 0,
      kvPoolTokens: 0,
      fullContextRequests: 0,
      reasons: [],
      remedies: [],
    },
    replicas: [replica],
    unplaced: [],
    refusals: [],
  })),
  actions: [],
  unchanged: [],
})

/** One Penstock on nodes that outlive it. */
const penstock = async (
  clock: ManualClock,
  machines: readonly FakeNode[],
  wants: PlannedReplica[],
) => {
  const fleet = new Fleet()
  const lines: string[] = []
  const control = { inFlight: 0, answer: { ready: true } satisfies ProbeAnswer as ProbeAnswer }
  const log = (line: string): void => {
    lines.push(line)
  }
  const nodes = new Nodes({
    fleet,
    clock,
    log,
    driverFor: ({ name }) => {
      const machine = machines.find((one) => one.name === name)
      if (machine === undefined) throw new Error(`no machine ${name}`)
      return machine.driver()
    },
  })
  await nodes.use({
    nodes: machines.map(({ name }) => ({ ...NodeSchema.parse({ address: '127.0.0.1' }), name })),
  })
  const loop = new Loop({
    fleet,
    clock,
    log,
    runtimes: plainRuntimes,
    driverOf: (node) => nodes.driver(node),
    inFlight: () => control.inFlight,
    probe: async () => control.answer,
    postmortem: async () => 'last words',
  })
  const want = (replicas: readonly PlannedReplica[]): void => {
    const timeouts = new Map(replicas.map(({ deployment }) => [deployment, TIMEOUTS]))
    fleet.planned(planOf(replicas), timeouts, clock.now())
  }
  want(wants)
  nodes.start()
  loop.start()
  const state = (id: string) => fleet.replicas.get(id)?.state
  const close = async (): Promise<void> => {
    await Promise.all([loop.close(), nodes.close(), clock.advance(5000)])
  }
  return { fleet, lines, control, want, state, close }
}

const machinesOf = (clock: ManualClock): FakeNode[] =>
  ['a', 'b', 'c'].map((name) => fakeNode(name, () => Promise.resolve(void clock)))

const pass = async (clock: ManualClock, seconds: number): Promise<void> => {
  for (let step = 0; step < seconds * 4; step += 1) await clock.advance(250)
}

describe('the control loop', () => {
  it('starts both groups and admits them once they answer', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    const run = await penstock(clock, machines, [R1, QWQ])
    await pass(clock, 5)
    expect([run.state('deepseek-r1/0'), run.state('qwq-32b/0')]).toEqual(['ready', 'ready'])
    await run.close()
  })

  it('does not admit an engine that listens but does not answer', async () => {
    const clock = manualClock()
    const run = await penstock(clock, machinesOf(clock), [QWQ])
    run.control.answer = { ready: false, reason: 'the smoke completion was answered 500' }
    await pass(clock, 10)
    expect(run.state('qwq-32b/0')).toBe('starting')
    expect(run.fleet.replicas.get('qwq-32b/0')?.reason).toContain('smoke')
    run.control.answer = { ready: true }
    await pass(clock, 3)
    expect(run.state('qwq-32b/0')).toBe('ready')
    await run.close()
  })

  it('restarts a whole group when one rank dies, and leaves the other deployment alone', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    const run = await penstock(clock, machines, [R1, QWQ])
    await pass(clock, 5)
    machines[2]?.kill('penstock-deepseek-r1-0-1', 137)
    await pass(clock, 10)
    expect(run.state('deepseek-r1/0')).toBe('ready')
    const started = (node: FakeNode | undefined, name: string) =>
      node?.log.filter((line) => line === `start ${name}`).length
    expect(started(machines[1], 'penstock-deepseek-r1-0-0')).toBe(2)
    expect(started(machines[2], 'penstock-deepseek-r1-0-1')).toBe(2)
    expect(started(machines[0], 'penstock-qwq-32b-0-0')).toBe(1)
    expect(run.lines.join('\n')).toContain('rank 1 on node c exited with code 137')
    await run.close()
  })

  it('starts again what somebody removed behind its back', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    const run = await penstock(clock, machines, [R1, QWQ])
    await pass(clock, 5)
    machines[0]?.containers.clear()
    await pass(clock, 10)
    expect(run.state('qwq-32b/0')).toBe('ready')
    expect(machines[0]?.log).toEqual(['start penstock-qwq-32b-0-0', 'start penstock-qwq-32b-0-0'])
    await run.close()
  })

  it('adopts what runs after a kill -9 and starts nothing', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    const first = await penstock(clock, machines, [R1, QWQ])
    await pass(clock, 5)
    await first.close()
    const before = machines.map(({ log }) => [...log])
    const second = await penstock(clock, machines, [R1, QWQ])
    await pass(clock, 5)
    expect([second.state('deepseek-r1/0'), second.state('qwq-32b/0')]).toEqual(['ready', 'ready'])
    expect(machines.map(({ log }) => log)).toEqual(before)
    await second.close()
  })

  it('backs off from a rank that cannot start, holds no half group, and says why', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    if (machines[2] !== undefined) machines[2].refuse = 'no such image'
    const run = await penstock(clock, machines, [R1])
    await pass(clock, 20)
    expect(run.state('deepseek-r1/0')).toBe('failed')
    expect(run.fleet.replicas.get('deepseek-r1/0')?.reason).toBe('node c, rank 1: no such image')
    expect(machines[1]?.containers.size).toBe(0)
    const tries = run.lines.filter((line) => line.includes('failed:')).length
    expect(tries).toBeGreaterThanOrEqual(3)
    expect(tries).toBeLessThanOrEqual(6)
    await run.close()
  })

  it('drains a removed deployment before it stops it, at the latest at the deadline', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    const run = await penstock(clock, machines, [R1, QWQ])
    await pass(clock, 5)
    run.control.inFlight = 2
    run.want([QWQ])
    await pass(clock, 10)
    expect(run.state('deepseek-r1/0')).toBe('draining')
    expect(machines[1]?.containers.size).toBe(1)
    await pass(clock, 15)
    expect(run.state('deepseek-r1/0')).toBeUndefined()
    expect(machines[1]?.containers.size).toBe(0)
    expect(machines[0]?.containers.size).toBe(1)
    await run.close()
  })

  it('does nothing to ranks on a node it cannot see, and goes on when it is back', async () => {
    const clock = manualClock()
    const machines = machinesOf(clock)
    const run = await penstock(clock, machines, [R1])
    await pass(clock, 5)
    if (machines[2] !== undefined) machines[2].away = true
    machines[1]?.kill('penstock-deepseek-r1-0-0', 1)
    await pass(clock, 10)
    expect(machines[1]?.log).toEqual(['start penstock-deepseek-r1-0-0'])
    expect(run.fleet.replicas.get('deepseek-r1/0')?.reason).toContain('node c unreachable')
    if (machines[2] !== undefined) machines[2].away = false
    await pass(clock, 10)
    expect(run.state('deepseek-r1/0')).toBe('ready')
    await run.close()
  })
})
