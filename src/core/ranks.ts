/** What both engines' command lines say in the same words about a rank and its group. */
import type { LaunchAsk } from './runtime.ts'

/** Whole seconds of a duration; engines take no fractions. */
export const seconds = (ms: number): number => Math.ceil(ms / 1000)

/** `host:port`; IPv6 in brackets (RFC 3986 3.2.2). */
export const hostPort = (host: string, port: number): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

type Rank = LaunchAsk['ranks'][number]

export const rankOf = (ask: LaunchAsk): Rank => {
  const rank = ask.ranks[ask.rank]
  if (rank === undefined) throw new RangeError(`rank ${ask.rank} of ${ask.ranks.length}`)
  return rank
}

export const leaderOf = (ask: LaunchAsk): Rank => rankOf({ ...ask, rank: 0 })

/**
 * NCCL and Gloo on the declared fabric, only for groups over several nodes: left to themselves both
 * take the first interface that is up, which on multi-homed hosts hangs the start (vllm #7815,
 * sglang #4978). NCCL_IB_GID_INDEX is 3 on most RoCE fabrics (sglang #3516).
 */
export const fabricEnvironment = (ask: LaunchAsk): Readonly<Record<string, string>> => {
  const { fabric } = rankOf(ask).node
  if (ask.ranks.length === 1 || fabric === undefined) return {}
  return {
    NCCL_SOCKET_IFNAME: fabric.interface,
    GLOO_SOCKET_IFNAME: fabric.interface,
    ...(fabric.hca.length === 0 ? {} : { NCCL_IB_HCA: fabric.hca.join(',') }),
    ...(fabric.gidIndex === undefined ? {} : { NCCL_IB_GID_INDEX: String(fabric.gidIndex) }),
  }
}

/** From flags with values, leaving out those that are null; `true` is a flag without a value. */
export const flags = (
  given: Readonly<Record<string, string | number | boolean | null>>,
): string[] =>
  Object.entries(given).flatMap(([flag, value]) => {
    if (value === null || value === false) return []
    return value === true ? [flag] : [flag, String(value)]
  })

/**
 * Seconds that an engine gets to end what it answers after SIGTERM. Penstock drains first, so this
 * is for an operator's own `docker stop`; a hung engine costs a restart no more than this.
 */
export const SHUTDOWN_SECONDS = 30
/** SIGKILL comes this much later: the container must outlive the engine's own deadline. */
export const STOP_GRACE_MS = (SHUTDOWN_SECONDS + 15) * 1000

/**
 * Idle seconds after which the engine closes a pooled connection. uvicorn's 5 is shorter than the
 * gateway's pool keeps one, and each race is a reset that a client sees.
 */
export const KEEP_ALIVE_SECONDS = 120
