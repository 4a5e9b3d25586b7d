/**
 * Do token limits hold? Callers who ask again and again, through one or two gateways, against a
 * limit of 100 and of 60,000 tokens a minute. The engine is the flight simulator, so fast that five
 * callers ask for more than either; what was let through is what its own usage says.
 */

import { GatewaySchema } from '../../../src/core/gateway-manifest.ts'
import { type GatewayLimit, limitsOf } from '../../../src/core/limits.ts'
import type { RedisAddress } from '../../../src/gateway/redis-link.ts'
import { KEY, routeOf, snapshotOf, startTestGateway, targetOf } from '../../support/gateway.ts'

export type LimitCase = {
  readonly tokensPerMinute: number
  readonly callers: number
  readonly threads: number
  readonly gateways: 1 | 2
}

export type LimitResult = LimitCase & {
  readonly seconds: number
  readonly answered: number
  readonly refused: number
  readonly passed: number
  readonly allowed: number
  /** Tokens beyond limit and burst; 0: the limit held. */
  readonly overshoot: number
  /** Answers of the gateway that were neither 200 nor 429. */
  readonly other: number
}

const SECONDS = 20
const WAIT_MS_MAX = 1000
/** An answer of a two-hundredth of the limit, or what is left of a small one. */
const answerTokens = (tokensPerMinute: number): number =>
  Math.max(40, Math.round(tokensPerMinute / 200))

/** `redis`: where two gateways share their limits; null: one gateway, its own memory. */
export const limitCase = async (
  engineUrl: string,
  one: LimitCase,
  redis: RedisAddress | null,
): Promise<LimitResult> => {
  const snapshot = snapshotOf([
    routeOf([targetOf(engineUrl)], { limits: limitsAt(one.tokensPerMinute) }),
  ])
  const gateways = await Promise.all(
    Array.from({ length: one.gateways }, () =>
      startTestGateway(snapshot, one.threads, redis === null ? {} : { redis }),
    ),
  )
  try {
    const tally = { answered: 0, refused: 0, passed: 0, other: 0 }
    const startMs = performance.now()
    const endMs = startMs + SECONDS * 1000
    await Promise.all(
      Array.from({ length: one.callers }, (_, index) =>
        caller(gateways[index % gateways.length]?.url ?? '', { ...one, endMs }, tally),
      ),
    )
    const seconds = (performance.now() - startMs) / 1000
    // The bucket is full at the start, and fills on while the callers ask.
    const allowed = one.tokensPerMinute * (1 + SECONDS / 60)
    return { ...one, ...tally, seconds, allowed, overshoot: Math.max(0, tally.passed - allowed) }
  } finally {
    await Promise.all(gateways.map(({ handle }) => handle.close()))
  }
}

/** A fresh name each time, so that one case's tokens are not the next one's. */
let nth = 0

const limitsAt = (tokensPerMinute: number): readonly GatewayLimit[] => {
  nth += 1
  const model = `case-${process.pid}-${Date.now()}-${nth}`
  const routes = [{ model, to: 'qwq-32b', limits: [{ per: 'consumer', tokensPerMinute }] }]
  return GatewaySchema.parse({ kind: 'Gateway', routes }).routes.flatMap(limitsOf)
}

type Tally = { answered: number; refused: number; passed: number; other: number }

type Call = Pick<LimitCase, 'tokensPerMinute'> & { readonly endMs: number }

const caller = async (
  url: string,
  { tokensPerMinute, endMs }: Call,
  tally: Tally,
): Promise<void> => {
  while (performance.now() < endMs) {
    const answer = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        model: 'qwq-32b',
        max_tokens: answerTokens(tokensPerMinute),
        ignore_eos: true,
        messages: [{ role: 'user', content: 'Say something about water.' }],
      }),
    })
    const text = await answer.text()
    if (answer.status === 200) {
      tally.answered += 1
      tally.passed += Number(/"total_tokens": ?(\d+)/.exec(text)?.[1] ?? 0)
      continue
    }
    if (answer.status === 429) tally.refused += 1
    else tally.other += 1
    const waitMs = Number(answer.headers.get('retry-after-ms') ?? 100)
    await new Promise((resolve) => setTimeout(resolve, Math.min(waitMs, WAIT_MS_MAX)))
  }
}
