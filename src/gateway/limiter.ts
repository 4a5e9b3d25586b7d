/** A thread's limits: of this gateway alone, or shared with others where a Redis is given. */
import { LimitSlots } from './limit-slots.ts'
import { type Limiter, Limits } from './limits.ts'
import { SharedLimits } from './redis-limits.ts'
import type { RedisAddress } from './redis-link.ts'
import { RedisState } from './redis-state.ts'

export type RedisWiring = {
  readonly address: RedisAddress
  /** The same for all threads of this gateway, and no other's. */
  readonly gateway: string
  readonly state: SharedArrayBuffer
}

export type LimiterSetup = {
  readonly thread: number
  readonly threads: number
  readonly slots: SharedArrayBuffer
  /** Null: this gateway is alone. */
  readonly redis: RedisWiring | null
  readonly log: (message: string) => void
}

/** With a Redis it is asked for first: a start waits for it, but not for long. */
export const openLimiter = async (setup: LimiterSetup): Promise<Limiter> => {
  const { thread, threads, redis, log } = setup
  const slots = new LimitSlots(threads, setup.slots)
  // The process's clock, not the thread's: times in the slots are compared between threads.
  const local = new Limits({ slots, thread, now: () => process.hrtime.bigint() })
  if (redis === null) return local
  const { address, gateway } = redis
  const state = new RedisState(redis.state)
  const shared = new SharedLimits({ address, gateway, thread, local, state, log })
  await shared.opening()
  return shared
}
