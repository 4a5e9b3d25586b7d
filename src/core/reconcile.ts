/**
 * Our books against the engines' own: for each run of an engine, from its start to its end, the
 * tokens that our callers' answers named, those of our own probes, and what the engine's counters
 * gained. Counters begin at 0 again when an engine restarts: that is another run, or, where nobody
 * saw the restart, a reset within the run. Neither loses what was counted before.
 */

/** Tokens as the OpenAI usage object names them. */
export type TokenPair = { readonly prompt: number; readonly completion: number }

export type EngineRun = {
  readonly replica: string
  /** Identity of the run: the start of rank 0's container as its node says, epoch ms. */
  readonly run: number
  /** When our books on it began, epoch ms of our clock. */
  readonly openedAtMs: number
  /** Of the last reading of the engine's counters; null: none yet. */
  readonly readAtMs: number | null
  /** The counters when our books began: warm-up, and what others did. */
  readonly base: TokenPair
  readonly last: TokenPair
  /** Gained before counters fell back to 0 within this run. */
  readonly carried: TokenPair
  readonly resets: number
  /** How often a Penstock was killed during the run: what it was about is not in our books. */
  readonly kills: number
}

/** What finished requests and probes added up to during the run. */
export type OurTokens = {
  readonly requests: number
  /** Of `requests`: ended otherwise than `ok`. An engine goes on until it notices. */
  readonly cut: number
  /** Of `requests`: nobody said how many tokens they were. */
  readonly unmetered: number
  readonly tokens: TokenPair
  readonly probes: number
  readonly probeTokens: TokenPair
}

export const NO_TOKENS: TokenPair = { prompt: 0, completion: 0 }

export const plus = (a: TokenPair, b: TokenPair): TokenPair => ({
  prompt: a.prompt + b.prompt,
  completion: a.completion + b.completion,
})

const minus = (a: TokenPair, b: TokenPair): TokenPair => ({
  prompt: a.prompt - b.prompt,
  completion: a.completion - b.completion,
})

export const openRun = (
  replica: string,
  run: number,
  openedAtMs: number,
  base: TokenPair,
): EngineRun => ({
  replica,
  run,
  openedAtMs,
  readAtMs: openedAtMs,
  base,
  last: base,
  carried: NO_TOKENS,
  resets: 0,
  kills: 0,
})

/** Another reading of the counters. */
export const readRun = (run: EngineRun, counters: TokenPair, readAtMs: number): EngineRun => {
  const fell = counters.prompt < run.last.prompt || counters.completion < run.last.completion
  if (!fell) return { ...run, last: counters, readAtMs }
  return {
    ...run,
    carried: plus(run.carried, minus(run.last, run.base)),
    base: NO_TOKENS,
    last: counters,
    readAtMs,
    resets: run.resets + 1,
  }
}

/** What the engine counted since our books on it began. */
export const gained = ({ carried, last, base }: EngineRun): TokenPair =>
  plus(carried, minus(last, base))

export type ReconciledRun = {
  readonly replica: string
  readonly openedAtMs: number
  readonly readAtMs: number | null
  /** This run goes on: what runs now is in the engine's figures, not yet in ours. */
  readonly current: boolean
  readonly inFlight: number
  readonly engine: TokenPair
  readonly ours: TokenPair
  readonly probes: TokenPair
  /** Engine less ours less probes. */
  readonly difference: TokenPair
  readonly requests: number
  readonly cut: number
  readonly unmetered: number
  readonly resets: number
  readonly kills: number
  /** What may account for a difference; empty when there is none. */
  readonly why: readonly string[]
}

export type Reconciliation = { readonly runs: readonly ReconciledRun[] }

export type RunNow = { readonly current: boolean; readonly inFlight: number }

export const reconciled = (run: EngineRun, ours: OurTokens, now: RunNow): ReconciledRun => {
  const engine = gained(run)
  const difference = minus(engine, plus(ours.tokens, ours.probeTokens))
  const { requests, cut, unmetered } = ours
  const even = difference.prompt === 0 && difference.completion === 0
  return {
    replica: run.replica,
    openedAtMs: run.openedAtMs,
    readAtMs: run.readAtMs,
    ...now,
    engine,
    ours: ours.tokens,
    probes: ours.probeTokens,
    difference,
    requests,
    cut,
    unmetered,
    resets: run.resets,
    kills: run.kills,
    why: even ? [] : reasons(run, ours, now, difference),
  }
}

/** What each engine does about a connection that is gone: facts of engines.md 5.2. */
const UNTIL_NOTICED = 'engines go on until they notice (vLLM a step, SGLang 2 s)'

const reasons = (
  run: EngineRun,
  { cut, unmetered }: OurTokens,
  { inFlight }: RunNow,
  { prompt, completion }: TokenPair,
): readonly string[] => {
  const found = [
    inFlight === 0 ? '' : `${count(inFlight, 'request')} still running, counted when ended`,
    run.kills === 0
      ? ''
      : `Penstock was killed ${count(run.kills, 'time')}: what it let through or had just ended`,
    unmetered === 0 ? '' : `${count(unmetered, 'request')} ended before any figure was known`,
    cut === unmetered || cut === 0
      ? ''
      : `${count(cut - unmetered, 'request')} cut off: ${UNTIL_NOTICED}`,
    run.resets === 0
      ? ''
      : `the counters fell to 0 ${run.resets} times unseen, with what came after the last reading`,
  ].filter((text) => text !== '')
  if (found.length > 0) return found
  return prompt < 0 || completion < 0
    ? ['the engine counted less than it told our callers']
    : [
        'something else than this Penstock uses the engine, or answers of ours were lost, or ' +
          'begun here and given by another replica',
      ]
}

const count = (number: number, what: string): string =>
  `${number} ${what}${number === 1 ? '' : 's'}`
