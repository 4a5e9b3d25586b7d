/** The last log lines of ranks that failed, kept after their containers are removed. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Container } from '../core/observed.ts'
import { errorLine } from '../errors.ts'
import type { DriverOf } from './operations.ts'

const LINES = 2000
const TIMEOUT_MS = 5000
/** An engine's last words are often a banner or a warning; the error stands a little above them. */
const ERROR_LINE = /\b(error|exception|fatal|failed|killed|out of memory)\b/i
const LINE_MAX = 300

export type Postmortem = {
  /** Keeps the logs of these containers; answers the line that says most about the failure. */
  keep(containers: readonly Container[]): Promise<string>
  of(container: string): Promise<string | null>
}

export const postmortemIn = (
  directory: string,
  driverOf: DriverOf,
  log: (line: string) => void,
): Postmortem => {
  const file = (container: string): string => join(directory, `${container}.failed.log`)
  const keepOne = async ({ name, labels }: Container): Promise<string> => {
    const driver = driverOf(labels.node)
    if (driver === null) return ''
    try {
      const text = await driver.logs(name, LINES, AbortSignal.timeout(TIMEOUT_MS))
      await mkdir(directory, { recursive: true, mode: 0o700 })
      await writeFile(file(name), text, { mode: 0o600 })
      return text
    } catch (error) {
      log(`${name}: its last log lines could not be kept: ${errorLine(error)}`)
      return ''
    }
  }
  return {
    keep: async (containers) => {
      const ended = containers.filter(({ state }) => state !== 'running')
      const texts = await Promise.all(containers.map(keepOne))
      const telling = containers.findIndex((container) => container === (ended[0] ?? containers[0]))
      return lastWords(texts[telling] ?? '')
    },
    of: async (container) => {
      try {
        return await readFile(file(container), 'utf8')
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
        throw error
      }
    },
  }
}

/** The last line that names an error, else the last line. */
const lastWords = (text: string): string => {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  const line = lines.findLast((one) => ERROR_LINE.test(one)) ?? lines.at(-1) ?? ''
  return line.trim().slice(0, LINE_MAX)
}
