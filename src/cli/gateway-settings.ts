/** Where the gateway listens and by what Redis it shares its limits, from the settings. */
import { readFileSync } from 'node:fs'
import type { Settings } from '../config.ts'
import { fileProblem } from '../control/file.ts'
import { PenstockError } from '../errors.ts'
import type { GatewayStart } from '../gateway/threads.ts'

type GatewaySettings = Pick<GatewayStart, 'host' | 'port' | 'threads' | 'redis'>

/** Throws invalid_input where the password's file cannot be read. */
export const gatewaySettings = (settings: Settings): GatewaySettings => ({
  host: settings.gatewayHost,
  port: settings.gatewayPort,
  threads: settings.threads,
  ...redisOf(settings),
})

const redisOf = (settings: Settings): Pick<GatewayStart, 'redis'> => {
  const { redis: url, redisPasswordFile: file } = settings
  if (url === undefined) return {}
  if (file === undefined) return { redis: { url, password: null } }
  try {
    return { redis: { url, password: readFileSync(file, 'utf8').trim() } }
  } catch (error) {
    const message = `PENSTOCK_REDIS_PASSWORD_FILE: ${file}: ${fileProblem(error)}`
    throw new PenstockError('invalid_input', message)
  }
}
