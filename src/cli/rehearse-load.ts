/** `penstock rehearse load`: next month's load against a running gateway, and what callers saw. */
import { setInterval } from 'node:timers'
import { systemClock as clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { arrivals } from '../load/arrivals.ts'
import type { Lengths } from '../load/lengths.ts'
import { Random } from '../load/random.ts'
import { runLoad } from '../load/run.ts'
import { type PlannedRequest, plan, type WeightedModel } from '../load/sessions.ts'
import { Summary } from '../load/summary.ts'
import { EXIT, type ExitCode, print, printJson, say } from './output.ts'
import { type LoadAsk, readLoadAsk } from './rehearse-ask.ts'
import {
  consumerName,
  type Keys,
  keysOf,
  modelsAt,
  modelsOf,
  type Place,
  placeOf,
} from './rehearse-place.ts'
import { summaryText } from './rehearse-summary.ts'
import { onSignals } from './signals.ts'

const PROGRESS_MS = 5000

export const rehearseLoad = async (
  settings: Settings,
  given: Readonly<Record<string, unknown>>,
): Promise<ExitCode> => {
  const ask = readLoadAsk(given)
  const ended = new AbortController()
  const stop = onSignals(['SIGINT', 'SIGTERM'], () => ended.abort())
  try {
    const place = await placeOf(settings, ask)
    const keys = await keysOf(settings, ask)
    try {
      const known = await modelsAt(place.baseUrl, keys)
      const models = modelsOf(ask, known)
      return await loaded(ask, { ...place, models, keys, signal: ended.signal })
    } finally {
      await keys.revoke()
    }
  } finally {
    stop()
  }
}

type Run = Place & {
  readonly models: readonly WeightedModel[]
  readonly keys: Keys
  readonly signal: AbortSignal
}

const loaded = async (ask: LoadAsk, run: Run): Promise<ExitCode> => {
  const { speed, baseUrl, keys, signal } = run
  const summary = new Summary(consumerName)
  let sent = 0
  const startMs = clock.monotonic()
  const progress = setInterval(() => {
    const seconds = ((clock.monotonic() - startMs) / 1000) * speed
    say(`  ${seconds.toFixed(0)} s: ${progressLine(summary, sent)}`)
  }, PROGRESS_MS)
  const title = titleOf(ask, run)
  say(`${title}, at ${baseUrl}. Ctrl-C ends it early.`)
  try {
    const elapsedMs = await runLoad({
      baseUrl,
      keys: keys.secrets,
      requests: requestsOf(ask, run.models),
      speed,
      exact: !ask.natural,
      openMax: ask.open,
      timeoutMs: (ask.timeout * 1000) / speed,
      clock,
      signal,
      onSent: () => {
        sent += 1
      },
      onFinished: (finished) => summary.add(finished),
    })
    const view = summary.view(elapsedMs, speed)
    if (ask.json) printJson({ title, baseUrl, seed: ask.seed, ...view })
    else print(`\n${summaryText(view, title)}`)
    const { ok, refused, left } = view.total.outcomes
    return ok + refused + left === 0 && view.total.requests > 0 ? EXIT.failed : EXIT.done
  } finally {
    clearInterval(progress)
  }
}

const progressLine = ({ total }: Summary, sent: number): string => {
  const { ok, refused, error, cut, timeout } = total.outcomes
  const failed = error + cut + timeout
  const open = sent - total.requests
  return `sent ${sent}, open ${open}, ok ${ok}, refused ${refused}, failed ${failed}`
}

const titleOf = (ask: LoadAsk, { models, speed }: Run): string => {
  const { arrivals: when, lengths, consumers, seed } = ask
  const names = models.map(({ model, weight }) => `${model}=${weight}`).join(' ')
  const times = speed === 1 ? '' : `, ${speed} times faster than real`
  return (
    `Load: ${when.pattern}, ${when.ratePerSecond} requests/s, lengths ${lengths.name}, ` +
    `${consumers} consumers, ${names}, seed ${seed}${times}`
  )
}

const requestsOf = (
  ask: LoadAsk,
  models: readonly WeightedModel[],
): IteratorObject<PlannedRequest> => {
  const random = new Random(ask.seed)
  const lengths: Lengths = {
    ...ask.lengths,
    turns: ask.turns ?? ask.lengths.turns,
    prefixTokens: ask.prefix ?? ask.lengths.prefixTokens,
  }
  const times = until(arrivals(ask.arrivals, random.fork(1)), ask.endSeconds)
  const planned = plan({ models, consumers: ask.consumers, lengths }, times, random.fork(2))
  return Number.isFinite(ask.requestsMax) ? planned.take(ask.requestsMax) : planned
}

function* until(times: Iterable<number>, endSeconds: number): Generator<number> {
  for (const at of times) {
    if (at >= endSeconds) return
    yield at
  }
}
