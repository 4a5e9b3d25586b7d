import { describe, expect, test } from 'vitest'
import type { GatewayRoute, SpillCause, StandIn, TargetState } from '../../src/core/snapshot.ts'
import { chooseRoute } from '../../src/core/stand-in.ts'

const routeOf = (model: string, states: readonly TargetState[]): GatewayRoute => ({
  model,
  deployment: model,
  engine: 'vllm',
  servedModel: model,
  context: 32_768,
  firstTokenTimeoutMs: 1000,
  stallTimeoutMs: 1000,
  targets: states.map((state, slot) => ({
    id: `${model}/${slot}`,
    url: 'http://127.0.0.1:1',
    slot,
    state,
    requestsRunning: 0,
    requestsWaiting: 0,
    kvCacheUsageRatio: 0,
  })),
  why: '',
})

const ALL: readonly SpillCause[] = ['tokens', 'saturation', 'unavailable']
const withStandIn = (own: readonly TargetState[], over: Partial<StandIn> = {}): GatewayRoute => ({
  ...routeOf('deepseek-r1', own),
  standIn: {
    on: ALL,
    fraction: 0,
    reason: '',
    saturated: false,
    route: routeOf('qwq-32b', ['ready']),
    ...over,
  },
})
const ASK = { deny: false, draw: 0.5, tokens: 1000, later: false, newShare: 1, modest: false }
const HALF = { newShare: 0.5 }

describe('which route answers', () => {
  test.each<[string, GatewayRoute, Partial<typeof ASK>, SpillCause | null]>([
    ['no stand-in', routeOf('deepseek-r1', []), {}, null],
    ['calm', withStandIn(['ready']), {}, null],
    ['nobody is ready', withStandIn([]), {}, 'unavailable'],
    ['all drain', withStandIn(['draining']), {}, 'unavailable'],
    ['drawn', withStandIn(['ready'], { fraction: 0.6 }), {}, 'saturation'],
    ['others make room first', withStandIn(['ready'], { fraction: 1 }), { modest: true }, null],
    ['nobody is ready for the modest either', withStandIn([]), { modest: true }, 'unavailable'],
    ['not drawn', withStandIn(['ready'], { fraction: 0.5 }), {}, null],
    ['begins, as half of them do', withStandIn(['ready'], { fraction: 0.3 }), HALF, 'saturation'],
    ['goes on', withStandIn(['ready'], { fraction: 0.6 }), { ...HALF, later: true }, null],
    [
      'goes on, all are sent',
      withStandIn(['ready'], { fraction: 1 }),
      { ...HALF, later: true },
      'saturation',
    ],
    ['the caller denies', withStandIn([]), { deny: true }, null],
    ['too long for the stand-in', withStandIn([]), { tokens: 40_000 }, null],
    ['the stand-in is full', withStandIn([], { saturated: true }), {}, null],
    ['not for this cause', withStandIn([], { on: ['saturation'] }), {}, null],
    ['nobody there either', withStandIn([], { route: routeOf('q', ['draining']) }), {}, null],
  ])('%s', (_name, route, over, cause) => {
    const choice = chooseRoute(route, { ...ASK, ...over })
    expect(choice.cause).toBe(cause)
    expect(choice.route.model).toBe(cause === null ? 'deepseek-r1' : 'qwq-32b')
  })
})
