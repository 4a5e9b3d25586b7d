/** `penstock restart` and `penstock destroy`. */
import { z } from 'zod'
import type { Settings } from '../config.ts'
import { PenstockError } from '../errors.ts'
import { adminClient } from './client.ts'
import { EXIT, type ExitCode, print } from './output.ts'

const Ids = z.object({ replicas: z.array(z.string()) })

export const restart = async (settings: Settings, target: string): Promise<ExitCode> => {
  const answer = await adminClient(settings).json('POST', '/admin/v1/restart', { target })
  for (const id of Ids.parse(answer).replicas) print(`${id}: drains, then restarts`)
  return EXIT.done
}

export const destroy = async (
  settings: Settings,
  target: string | null,
  all: boolean,
): Promise<ExitCode> => {
  if ((target === null) !== all) {
    throw new PenstockError('invalid_input', 'name one deployment, or say --all')
  }
  const answer = await adminClient(settings).json('POST', '/admin/v1/destroy', { target })
  const { replicas } = Ids.parse(answer)
  if (replicas.length === 0) print('nothing is deployed')
  for (const id of replicas) print(`${id}: drains, then stops`)
  return EXIT.done
}
