/** An engine that ends right after its start: what the operator is told. Shared by all drivers. */
import { type ErrorPlace, PenstockError } from '../errors.ts'
import { lastLine } from './lines.ts'

/**
 * How long a start watches for an end, milliseconds. A wrong flag, a missing library or a taken
 * port shows at once or after seconds of imports; what ends later is the control loop's to judge.
 */
export const EARLY_EXIT_MS = 300
export const EARLY_POLL_MS = 30

export type EarlyExit = {
  readonly program: string
  readonly exitCode: number | null
  readonly log: string
  readonly place: ErrorPlace
}

/** uvicorn, asyncio, Node and tini say it in these words. */
const PORT_TAKEN = /address already in use|EADDRINUSE/i
/** tini (docker-init) could not execute the command of the container. */
const NO_PROGRAM = /\[FATAL tini[^\]]*\] exec (\S+) failed: (.+)/

export const earlyExit = (ended: EarlyExit): PenstockError => {
  const { program, exitCode, log, place } = ended
  const missing = NO_PROGRAM.exec(log)
  if (missing !== null) {
    const message = `the image has no program ${missing[1]} (${missing[2]})`
    return new PenstockError('container_refused', message, place)
  }
  const said = lastLine(log)
  const how = exitCode === null ? 'was killed' : `exited with ${exitCode}`
  const message = `${program} ${how} at once${said === '' ? '' : `: ${said}`}`
  return new PenstockError(PORT_TAKEN.test(log) ? 'port_taken' : 'engine_exited', message, place)
}
