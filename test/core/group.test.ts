import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decide, exitWords, type GroupInput, type Step } from '../../src/core/group.ts'
import { backoffMs, mayBecome } from '../../src/core/replica.ts'
import type { ReplicaState } from '../../src/core/view.ts'
import { containersOf, plannedReplica } from '../support/replicas.ts'

const want = plannedReplica()
const input = (changes: Partial<GroupInput> = {}): GroupInput => ({
  want,
  state: 'ready',
  containers: containersOf(want),
  unreachable: [],
  busy: null,
  restartAsked: false,
  nowMs: 1000,
  retryAtMs: 0,
  inFlight: 0,
  drainUntilMs: null,
  readyUntilMs: 10_000,
  ...changes,
})
const exited = (rank: number) => (r: number) =>
  r === rank ? { state: 'exited' as const, exitCode: 137 } : {}

/** The state that control/loop.ts enters for a step. */
const becomes = (step: Step, state: ReplicaState): ReplicaState => {
  if (step.do === 'stop') return step.next
  if (step.do === 'drain') return 'draining'
  return step.do === 'start' || step.do === 'adopt' ? 'starting' : state
}

describe('a group is decided on as a whole', () => {
  const cases: [string, Partial<GroupInput>, string][] = [
    ['all ranks run and it is ready', {}, 'wait'],
    ['all ranks run and it starts', { state: 'starting' }, 'probe'],
    ['found running after a restart of Penstock', { state: 'pending' }, 'adopt'],
    ['wanted again while it drains', { state: 'draining' }, 'adopt'],
    ['nothing runs', { state: 'pending', containers: [] }, 'start'],
    [
      'nothing runs and it is too early',
      { state: 'failed', containers: [], retryAtMs: 5000 },
      'wait',
    ],
    [
      'nothing runs and the time has come',
      { state: 'failed', containers: [], retryAtMs: 900 },
      'start',
    ],
    ['second rank was killed', { containers: containersOf(want, exited(1)) }, 'stop'],
    ['first rank was killed', { containers: containersOf(want, exited(0)) }, 'stop'],
    ['a rank is missing', { containers: containersOf(want, (r) => (r === 1 ? null : {})) }, 'stop'],
    ['not ready in time', { state: 'starting', nowMs: 10_000 }, 'stop'],
    ['removed while ready', { want: null }, 'drain'],
    ['removed while starting', { want: null, state: 'starting' }, 'stop'],
    [
      'removed, draining, busy',
      { want: null, state: 'draining', inFlight: 3, drainUntilMs: 2000 },
      'wait',
    ],
    ['removed, draining, idle', { want: null, state: 'draining', drainUntilMs: 2000 }, 'stop'],
    [
      'removed, drain deadline',
      { want: null, state: 'draining', inFlight: 3, drainUntilMs: 1000 },
      'stop',
    ],
    ['removed and gone', { want: null, containers: [] }, 'forget'],
    ['spec changed', { want: plannedReplica({ specHash: 'h2' }) }, 'drain'],
    ['restart asked', { restartAsked: true }, 'drain'],
    ['operation under way', { busy: { kind: 'start', specHash: 'h1' }, containers: [] }, 'wait'],
    ['start of an old spec', { busy: { kind: 'start', specHash: 'h0' }, containers: [] }, 'cancel'],
    [
      'removed while it is started',
      { want: null, busy: { kind: 'start', specHash: 'h1' } },
      'cancel',
    ],
    ['stop under way', { want: null, busy: { kind: 'stop', specHash: '' } }, 'wait'],
  ]
  it.each(cases)('%s', (_, changes, step) => {
    expect(decide(input(changes)).do).toBe(step)
  })

  it('names rank, node and cause when it restarts a group', () => {
    const step = decide(input({ containers: containersOf(want, exited(1)) }))
    expect(step).toEqual({
      do: 'stop',
      reason: 'rank 1 on node b exited with code 137 (SIGKILL: killed, or out of memory)',
      graceful: false,
      next: 'failed',
    })
  })

  it('never starts or stops anything while a node is out of sight', () => {
    const states = ['pending', 'starting', 'ready', 'draining', 'stopped', 'failed'] as const
    fc.assert(
      fc.property(
        fc.constantFrom(...states),
        fc.boolean(),
        fc.subarray(containersOf(want, exited(1)).slice()),
        (state, wanted, containers) => {
          const step = decide(
            input({
              state,
              want: wanted ? want : null,
              containers,
              unreachable: [{ node: 'b', reason: 'ECONNREFUSED' }],
            }),
          )
          expect(step.do).toBe('wait')
          expect(step.do === 'wait' && step.reason).toContain('node b unreachable')
        },
      ),
    )
  })

  it('never asks for a step that the table of transitions forbids', () => {
    const states = ['pending', 'starting', 'ready', 'draining', 'stopped', 'failed'] as const
    const stale = containersOf(plannedReplica({ specHash: 'h0' }))
    fc.assert(
      fc.property(
        fc.record({
          state: fc.constantFrom(...states),
          wanted: fc.boolean(),
          restartAsked: fc.boolean(),
          containers: fc.oneof(
            fc.subarray([...containersOf(want)]),
            fc.subarray([...containersOf(want, exited(1)), ...stale]),
          ),
          inFlight: fc.nat(2),
          nowMs: fc.nat(20_000),
        }),
        ({ wanted, ...rest }) => {
          const step = decide(input({ ...rest, want: wanted ? want : null }))
          const to = becomes(step, rest.state)
          expect([rest.state, to, mayBecome(rest.state, to)]).toContain(true)
        },
      ),
      { numRuns: 2000 },
    )
  })

  it('asks for a stop at most with containers there, and for a start only with none', () => {
    const states = ['pending', 'starting', 'ready', 'draining', 'stopped', 'failed'] as const
    fc.assert(
      fc.property(
        fc.record({
          state: fc.constantFrom(...states),
          wanted: fc.boolean(),
          restartAsked: fc.boolean(),
          containers: fc.subarray([
            ...containersOf(want),
            ...containersOf(plannedReplica({ specHash: 'h0' })),
          ]),
          inFlight: fc.nat(5),
          nowMs: fc.nat(20_000),
        }),
        ({ wanted, ...rest }) => {
          const step = decide(input({ ...rest, want: wanted ? want : null }))
          if (step.do === 'start') expect(rest.containers).toEqual([])
          if (step.do === 'stop') expect(rest.containers).not.toEqual([])
          if (step.do === 'probe') expect(rest.containers.length).toBeGreaterThanOrEqual(2)
        },
      ),
    )
  })
})

describe('words and waits', () => {
  it('says what an exit code means', () => {
    const [container] = containersOf(want, exited(0))
    if (container === undefined) throw new Error('no container')
    expect(exitWords({ ...container, exitCode: 1, error: null })).toBe('exited with code 1')
    expect(exitWords({ ...container, exitCode: null })).toBe('exited')
    expect(exitWords({ ...container, state: 'created', error: 'OCI error' })).toBe(
      'was created but never ran: OCI error',
    )
  })

  it('doubles the wait from 1 s to at most 60 s', () => {
    expect([0, 1, 2, 5, 6, 50].map(backoffMs)).toEqual([1000, 2000, 4000, 32_000, 60_000, 60_000])
  })

  it('lets nothing become ready that was not starting', () => {
    const states = ['pending', 'draining', 'stopped', 'failed'] as const
    for (const state of states) expect(mayBecome(state, 'ready')).toBe(false)
    expect(mayBecome('starting', 'ready')).toBe(true)
  })
})
