/**
 * External services as targets of routes. Their keys are read here, on the control side, when a
 * snapshot is made, and go nowhere but into it: no log, view or plan has them.
 */
import { readFileSync, type Stats, statSync } from 'node:fs'
import type { Backend } from '../core/gateway-manifest.ts'
import type { Target } from '../core/snapshot.ts'

/** Long enough for any token; a larger file is not a key. */
const KEY_BYTES_MAX = 16_384
/** A key that is changed counts after this long at most. */
const LOOK_EVERY_MS = 500

export type BackendsOptions = {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** A backend's row in the gateways' shared counts; null: there is none left. */
  readonly slotOf: (name: string) => number | null
}

/** A key's text, or why there is none, in words that may be shown to a client. */
type KeyAnswer =
  | { readonly ok: true; readonly key: string }
  | { readonly ok: false; readonly why: string }

type Kept = { readonly lookedAtMs: number; readonly mark: string; readonly answer: KeyAnswer }

export type BackendAnswer = { readonly targets: readonly Target[]; readonly why: string }

export class Backends {
  readonly #options: BackendsOptions
  /** By file; bounded by the manifest, see `keep`. */
  readonly #files = new Map<string, Kept>()

  constructor(options: BackendsOptions) {
    this.#options = options
  }

  /** Forgets the keys of backends that are gone. */
  keep(backends: Readonly<Record<string, Backend>>): void {
    const used = new Set(Object.values(backends).map(({ key }) => key?.file))
    for (const file of this.#files.keys()) if (!used.has(file)) this.#files.delete(file)
  }

  /** Always ready when its key can be read; whether it answers, the gateway's breaker finds out. */
  of(name: string, backend: Backend, nowMs: number): BackendAnswer {
    const key = this.#keyOf(backend, nowMs)
    const slot = this.#options.slotOf(name)
    if (key !== null && !key.ok) {
      return { targets: [], why: `backend ${name} has no key: ${key.why}` }
    }
    if (slot === null) return { targets: [], why: `there is no room for backend ${name}` }
    const { origin, pathname } = new URL(backend.url)
    const target: Target = {
      id: `backend/${name}`,
      url: origin,
      slot,
      state: 'ready',
      requestsRunning: null,
      requestsWaiting: null,
      kvCacheUsageRatio: null,
      backend: {
        name,
        basePath: pathname.replace(/\/+$/, ''),
        authorization: key === null ? null : `Bearer ${key.key}`,
      },
    }
    return { targets: [target], why: '' }
  }

  #keyOf({ key }: Backend, nowMs: number): KeyAnswer | null {
    if (key === undefined) return null
    if (key.file !== undefined) return this.#fromFile(key.file, nowMs)
    const value = this.#options.environment[key.environment ?? '']
    if (value !== undefined) return checked(value)
    return { ok: false, why: `the environment variable ${key.environment} is not set` }
  }

  #fromFile(file: string, nowMs: number): KeyAnswer {
    const kept = this.#files.get(file)
    if (kept !== undefined && Math.abs(nowMs - kept.lookedAtMs) < LOOK_EVERY_MS) return kept.answer
    const found = looked(file)
    if ('code' in found) {
      const answer = { ok: false, why: `its file cannot be read (${found.code})` } as const
      this.#files.set(file, { lookedAtMs: nowMs, mark: found.code, answer })
      return answer
    }
    const mark = `${found.mtimeMs} ${found.size} ${found.ino}`
    const answer = kept?.mark === mark ? kept.answer : read(file, found)
    this.#files.set(file, { lookedAtMs: nowMs, mark, answer })
    return answer
  }
}

/** The error's code is enough for whoever sees it: the manifest says which file. */
const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'unreadable'

const looked = (file: string): Stats | { readonly code: string } => {
  try {
    return statSync(file)
  } catch (error) {
    return { code: codeOf(error) }
  }
}

const read = (file: string, { size }: Stats): KeyAnswer => {
  if (size > KEY_BYTES_MAX) return { ok: false, why: 'its file is too large for a key' }
  try {
    return checked(readFileSync(file, 'utf8'))
  } catch (error) {
    return { ok: false, why: `its file cannot be read (${codeOf(error)})` }
  }
}

/** RFC 9110 5.5 and 11.2: visible ASCII, so that no second header can hide in it. */
const checked = (text: string): KeyAnswer => {
  const key = text.trim()
  if (key === '') return { ok: false, why: 'it is empty' }
  if (key.length > KEY_BYTES_MAX) return { ok: false, why: 'it is too long' }
  if (/^[\x21-\x7e]+$/.test(key)) return { ok: true, key }
  return { ok: false, why: 'it holds characters that no header can carry' }
}
