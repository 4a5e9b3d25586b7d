/** Where `penstock rehearse load` sends its load, with which keys, to which models. */
import { z } from 'zod'
import { systemClock as clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { nearest } from '../core/nearest.ts'
import { parsed } from '../core/usage.ts'
import { errorLine, PenstockError } from '../errors.ts'
import type { WeightedModel } from '../load/sessions.ts'
import { adminClient } from './client.ts'
import { say } from './output.ts'
import type { LoadAsk } from './rehearse-ask.ts'

/** How long a new key may take to reach every gateway thread. */
const KEY_MS = 10_000
const KEY_PAUSE_MS = 200

/** `baseUrl` ends in /v1; `speed` is simulated seconds to a real one. */
export type Place = { readonly baseUrl: string; readonly speed: number }

/** Consumer n uses the nth secret, counted round and round. */
export type Keys = {
  readonly secrets: readonly string[]
  /** Made just now: the gateway may need a moment to know them. */
  readonly temporary: boolean
  revoke(): Promise<void>
}

const Fleet = z.looseObject({
  rehearsalSpeed: z.number(),
  nodes: z.array(z.looseObject({ rehearsal: z.boolean() })),
})

/** Simulated time means something where every node is rehearsed; elsewhere time is time. */
export const placeOf = async (settings: Settings, ask: LoadAsk): Promise<Place> => {
  if (ask.baseUrl !== undefined) return { baseUrl: ask.baseUrl, speed: ask.speed ?? 1 }
  const host = settings.gatewayHost === '0.0.0.0' ? '127.0.0.1' : settings.gatewayHost
  const baseUrl = `http://${host}:${settings.gatewayPort}/v1`
  if (ask.speed !== undefined) return { baseUrl, speed: ask.speed }
  const fleet = Fleet.parse(await adminClient(settings).json('GET', '/admin/v1/fleet'))
  const played = fleet.nodes.length > 0 && fleet.nodes.every(({ rehearsal }) => rehearsal)
  return { baseUrl, speed: played ? fleet.rehearsalSpeed : 1 }
}

export const consumerName = (consumer: number): string => `rehearsal-${consumer + 1}`

const Created = z.object({ key: z.string(), view: z.looseObject({ id: z.string() }) })

/** The keys given; else a temporary one a consumer, so that limits per consumer are met. */
export const keysOf = async (settings: Settings, ask: LoadAsk): Promise<Keys> => {
  const fromEnvironment = process.env.PENSTOCK_KEY ?? ''
  const given = ask.key.length > 0 || fromEnvironment === '' ? ask.key : [fromEnvironment]
  if (given.length > 0 || ask.baseUrl !== undefined) {
    return { secrets: given, temporary: false, revoke: () => Promise.resolve() }
  }
  const admin = adminClient(settings)
  const [secrets, ids]: [string[], string[]] = [[], []]
  const revoke = async (): Promise<void> => {
    for (const id of ids.splice(0)) {
      await admin.json('DELETE', `/admin/v1/keys/${id}`).catch((error: unknown) => {
        say(`key ${id} is still valid (${errorLine(error)}); \`penstock keys revoke ${id}\``)
      })
    }
  }
  try {
    for (let consumer = 0; consumer < ask.consumers; consumer += 1) {
      const body = { role: 'consumer', consumer: consumerName(consumer), models: null }
      const made = Created.parse(await admin.json('POST', '/admin/v1/keys', body))
      ids.push(made.view.id)
      secrets.push(made.key)
    }
  } catch (error) {
    await revoke()
    throw error
  }
  return { secrets, temporary: true, revoke }
}

const Models = z.object({ data: z.array(z.looseObject({ id: z.string() })) })

/** What the endpoint lists for the newest key; null when it has no list. Throws not_running. */
export const modelsAt = async (
  baseUrl: string,
  { secrets, temporary }: Keys,
): Promise<readonly string[] | null> => {
  const key = secrets.at(-1)
  const headers: Record<string, string> =
    key === undefined ? {} : { authorization: `Bearer ${key}` }
  const endMs = clock.monotonic() + KEY_MS
  for (;;) {
    const answer = await fetch(`${baseUrl}/models`, { headers }).catch((cause: unknown) => {
      const message = `nothing answers at ${baseUrl}; start it with \`make up\` or see --base-url`
      throw new PenstockError('not_running', message, {}, cause)
    })
    const text = await answer.text()
    if (answer.ok) return Models.safeParse(parsed(text)).data?.data.map(({ id }) => id) ?? null
    if (answer.status !== 401 && answer.status !== 403) return null
    if (clock.monotonic() > endMs || !temporary) {
      const message = `${baseUrl} refuses the key (${answer.status}): give another by --key`
      throw new PenstockError('invalid_api_key', message)
    }
    await clock.sleep(KEY_PAUSE_MS)
  }
}

export const modelsOf = (
  ask: LoadAsk,
  known: readonly string[] | null,
): readonly WeightedModel[] => {
  if (ask.model.length === 0) {
    if (known !== null && known.length > 0) return known.map((model) => ({ model, weight: 1 }))
    throw new PenstockError('invalid_input', '--model: the endpoint lists no model; name one')
  }
  const strange = ask.model.find(({ model }) => known !== null && !known.includes(model))
  if (strange === undefined) return ask.model
  const guess = nearest(strange.model, known ?? [])
  const hint = guess === null ? `known: ${known?.join(', ')}` : `did you mean ${guess}?`
  throw new PenstockError('invalid_input', `--model: no model ${strange.model} (${hint})`)
}
