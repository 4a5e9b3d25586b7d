/** `penstock apply`: through the running Penstock, one line of progress per rank. */
import { z } from 'zod'
import type { Settings } from '../config.ts'
import type { ApplyEvent, Issue } from '../core/admin.ts'
import { PenstockError } from '../errors.ts'
import { Board } from './board.ts'
import { adminClient } from './client.ts'
import { inputsOf, refuse } from './inputs.ts'
import { EXIT, type ExitCode, print, say } from './output.ts'
import type { Flags } from './program.ts'
import { onSignals } from './signals.ts'

const IssueSchema = z.object({
  file: z.string(),
  line: z.number(),
  column: z.number(),
  path: z.string(),
  message: z.string(),
}) satisfies z.ZodType<Issue>

const Phase = z.enum(['pull', 'start', 'rendezvous', 'weights', 'profile', 'graphs', 'ready'])

const EventSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('plan'), text: z.string(), actions: z.number() }),
  z.object({
    kind: z.literal('rank'),
    replica: z.string(),
    rank: z.number(),
    node: z.string(),
    phase: Phase,
    ratio: z.number().nullable(),
    note: z.string(),
  }),
  z.object({
    kind: z.literal('replica'),
    replica: z.string(),
    state: z.string(),
    reason: z.string(),
  }),
  z.object({ kind: z.literal('issues'), issues: z.array(IssueSchema) }),
  z.object({ kind: z.literal('done'), message: z.string() }),
  z.object({ kind: z.literal('failed'), message: z.string() }),
]) satisfies z.ZodType<ApplyEvent>

const GOES_ON = `
Stopped watching. Penstock goes on with what was begun; nothing is left half-done.
\`penstock status\` shows how far it is, \`penstock destroy --all\` takes it back.`

export const apply = async (settings: Settings, { json }: Flags): Promise<ExitCode> => {
  const inputs = await inputsOf(settings)
  if (!inputs.ok) return refuse(inputs.issues)
  const left = new AbortController()
  const stopListening = onSignals(['SIGINT', 'SIGTERM'], () => left.abort())
  try {
    const events = adminClient(settings).events('/admin/v1/apply', inputs.files, left.signal)
    const show = json ? printEvents(events) : showEvents(parsed(events))
    return await show
  } catch (error) {
    if (!left.signal.aborted) throw error
    say(GOES_ON)
    return EXIT.failed
  } finally {
    stopListening()
  }
}

async function* parsed(events: AsyncIterable<unknown>): AsyncIterable<ApplyEvent> {
  for await (const event of events) yield EventSchema.parse(event)
}

const printEvents = async (events: AsyncIterable<unknown>): Promise<ExitCode> => {
  let code: ExitCode = EXIT.failed
  for await (const event of parsed(events)) {
    print(JSON.stringify(event))
    if (event.kind === 'issues') code = EXIT.badInput
    if (event.kind === 'done') code = EXIT.done
  }
  return code
}

/** Shows the events of one apply, from the running Penstock or from `up`'s own. */
export const showEvents = async (events: AsyncIterable<ApplyEvent>): Promise<ExitCode> => {
  const board = new Board()
  try {
    for await (const event of events) {
      if (event.kind === 'plan') continue
      if (event.kind === 'issues') return refuse(event.issues)
      if (event.kind === 'rank') board.rank(event)
      if (event.kind === 'replica') board.replica(event)
      if (event.kind === 'done' || event.kind === 'failed') {
        board.end()
        say(event.kind === 'done' ? event.message : `failed: ${event.message}`)
        return event.kind === 'done' ? EXIT.done : EXIT.failed
      }
    }
  } finally {
    board.end()
  }
  throw new PenstockError('not_running', 'Penstock went away while it applied')
}
