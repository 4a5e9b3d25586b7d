/** `penstock keys`: create, list, revoke, through the running Penstock. */
import { z } from 'zod'
import type { Settings } from '../config.ts'
import { adminClient } from './client.ts'
import { age, EXIT, type ExitCode, print, printJson, say, table } from './output.ts'
import type { Flags } from './program.ts'

const View = z.object({
  id: z.string(),
  role: z.enum(['consumer', 'admin']),
  consumer: z.string(),
  prefix: z.string(),
  models: z.array(z.string()).nullable(),
  createdAtMs: z.number(),
  revokedAtMs: z.number().nullable(),
})
const Views = z.object({ keys: z.array(View) })
const Created = z.object({ key: z.string(), view: View })

export const keysList = async (settings: Settings, { json }: Flags): Promise<ExitCode> => {
  const { keys } = Views.parse(await adminClient(settings).json('GET', '/admin/v1/keys'))
  if (json) {
    printJson(keys)
    return EXIT.done
  }
  const nowMs = Date.now()
  const rows = keys.map(({ id, role, consumer, prefix, models, createdAtMs, revokedAtMs }) => [
    id,
    role,
    consumer,
    `${prefix}…`,
    models === null ? 'every model' : models.join(','),
    `${age(nowMs - createdAtMs)} old`,
    revokedAtMs === null ? 'valid' : `revoked ${age(nowMs - revokedAtMs)} ago`,
  ])
  print(table([['ID', 'ROLE', 'CONSUMER', 'KEY', 'MODELS', 'AGE', 'STATE'], ...rows]))
  return EXIT.done
}

export const keysCreate = async (settings: Settings, flags: Flags): Promise<ExitCode> => {
  const role = flags.admin ? 'admin' : 'consumer'
  const ask = { role, consumer: flags.consumer, models: flags.models }
  const created = Created.parse(await adminClient(settings).json('POST', '/admin/v1/keys', ask))
  if (flags.json) printJson(created)
  else {
    print(created.key)
    say(`key ${created.view.id} of ${created.view.consumer}; it is shown only this once`)
  }
  return EXIT.done
}

export const keysRevoke = async (settings: Settings, id: string): Promise<ExitCode> => {
  await adminClient(settings).json('DELETE', `/admin/v1/keys/${encodeURIComponent(id)}`)
  say(`key ${id} revoked`)
  return EXIT.done
}
