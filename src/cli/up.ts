/** `penstock up`: everything on this machine in one terminal; Ctrl-C stops all of it. */
import { existsSync } from 'node:fs'
import { systemClock as clock } from '../clock.ts'
import type { Settings } from '../config.ts'
import { showEvents } from './apply.ts'
import { inputsOf, refuse } from './inputs.ts'
import { openLog } from './log.ts'
import { bold, dim, EXIT, type ExitCode, print, say, yellow } from './output.ts'
import { type Penstock, startPenstock } from './penstock.ts'
import { signalled } from './signals.ts'

const DRAIN_MS = 3000
const STOP_MS = 90_000
/** A closed terminal ends it like Ctrl-C does. */
const ENDS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** The NVIDIA driver makes this device when it is loaded. */
const gpuHere = (): boolean => existsSync('/dev/nvidiactl')

export const up = async (given: Settings, asked: boolean | null): Promise<ExitCode> => {
  const rehearse = asked ?? !gpuHere()
  // A rehearsal is for whoever sits here; it is not put on the network unless that is asked for.
  const open = process.env.PENSTOCK_GATEWAY_HOST !== undefined || !rehearse
  const settings = open ? given : { ...given, gatewayHost: '127.0.0.1' }
  const inputs = await inputsOf(settings)
  if (!inputs.ok) return refuse(inputs.issues)
  const penstock = await startPenstock({ settings, rehearse, log: openLog(settings, 'file') })
  if (rehearse) {
    const why = asked === null ? 'no NVIDIA GPU on this machine' : 'as asked'
    say(
      yellow(`Rehearsal (${why}): the flight simulator plays every node of ${settings.inventory}.`),
    )
  }
  const left = new AbortController()
  const stopping = signalled(ENDS).finally(() => left.abort())
  const events = penstock.admin.apply(inputs.files, left.signal)
  const code = await showEvents(events).catch((error: unknown) => {
    if (left.signal.aborted) return EXIT.done
    throw error
  })
  if (code !== EXIT.done) {
    await stop(penstock)
    return code
  }
  if (!left.signal.aborted) welcome(penstock, settings, rehearse)
  await stopping
  return stop(penstock)
}

const stop = async (penstock: Penstock): Promise<ExitCode> => {
  say('\nStopping: requests get 3 s to end, then the engines stop. Ctrl-C again to leave them.')
  const again = signalled().then(() => true)
  const stopped = (async (): Promise<false> => {
    penstock.release()
    await penstock.drain(DRAIN_MS)
    const until = clock.monotonic() + STOP_MS
    while (penstock.remaining() > 0 && clock.monotonic() < until) await clock.sleep(100)
    return false
  })()
  const leftThem = await Promise.race([stopped, again])
  const remaining = penstock.remaining()
  await penstock.close()
  if (!leftThem && remaining === 0) say('Stopped; nothing is left running.')
  else say(`${remaining} replica(s) still run; the next \`make up\` takes them over.`)
  return leftThem || remaining === 0 ? EXIT.done : EXIT.failed
}

const welcome = (penstock: Penstock, settings: Settings, rehearse: boolean): void => {
  const { adminKey, consumerKey } = penstock.made
  const earlier = dim('shown at the first start; `penstock keys create` makes another')
  const shownKey = consumerKey ?? '$PENSTOCK_KEY'
  const models = penstock.admin.fleet().routes.map(({ model }) => model)
  print(`
  ${bold('endpoint')}      ${penstock.gatewayUrl}
  ${bold('consumer key')}  ${consumerKey ?? earlier}
  ${bold('console')}       ${penstock.consoleUrl}
  ${bold('admin key')}     ${adminKey ?? dim(`in ${settings.home}/admin.key`)}
  ${bold('models')}        ${models.join(', ')}${rehearse ? yellow('  (rehearsal)') : ''}

Try it from another terminal:

  curl ${penstock.gatewayUrl}/chat/completions \\
    -H "authorization: Bearer ${shownKey}" -H 'content-type: application/json' \\
    -d '{"model":"${models[0] ?? ''}","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

Ctrl-C stops everything that was started here.`)
}
