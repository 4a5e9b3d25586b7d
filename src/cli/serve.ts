/** `penstock serve`: run until told to stop; the engines outlive it. */
import type { Settings } from '../config.ts'
import { openLog } from './log.ts'
import { EXIT, type ExitCode } from './output.ts'
import { startPenstock } from './penstock.ts'
import { signalled } from './signals.ts'

/** Answers that still stream get this long after SIGTERM; a second signal cuts them. */
const DRAIN_MS = 60_000

export const serve = async (settings: Settings, rehearse: boolean): Promise<ExitCode> => {
  const log = openLog(settings, 'stdout')
  const penstock = await startPenstock({ settings, rehearse, log })
  const { adminKey, consumerKey } = penstock.made
  log.info(`endpoint ${penstock.gatewayUrl}, console ${penstock.consoleUrl}`)
  if (adminKey !== null) process.stderr.write(`admin key (shown once): ${adminKey}\n`)
  if (consumerKey !== null) process.stderr.write(`consumer key (shown once): ${consumerKey}\n`)
  const first = await signalled()
  log.info(`${first}: draining for up to ${DRAIN_MS / 1000} s; engines go on`)
  await Promise.race([penstock.drain(DRAIN_MS), signalled()])
  await penstock.close()
  log.info('stopped')
  return EXIT.done
}
