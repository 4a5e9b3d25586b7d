/** Where Penstock's own log goes: JSON lines by pino, to stdout or to a file in PENSTOCK_HOME. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Logger, pino } from 'pino'
import type { Settings } from '../config.ts'

export type Log = {
  readonly pino: Logger
  info(line: string): void
  error(line: string): void
}

export const openLog = (settings: Settings, to: 'stdout' | 'file'): Log => {
  const directory = join(settings.home, 'logs')
  if (to === 'file') mkdirSync(directory, { recursive: true, mode: 0o700 })
  const destination = to === 'file' ? join(directory, 'penstock.log') : 1
  const logger = pino(
    { level: settings.logLevel, base: { pid: process.pid } },
    pino.destination({ dest: destination, sync: true }),
  )
  return {
    pino: logger,
    info: (line) => logger.info(line),
    error: (line) => logger.error(line),
  }
}
