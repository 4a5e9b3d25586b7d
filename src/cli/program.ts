/** The verbs and their flags. Each verb is a function in a file of its own. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { loadSettings, SECRET, type Settings, SettingsSchema } from '../config.ts'
import { errorLine, PenstockError } from '../errors.ts'
import { apply } from './apply.ts'
import { check } from './check.ts'
import { doctor } from './doctor.ts'
import { keysCreate, keysList, keysRevoke } from './keys.ts'
import { logs } from './logs.ts'
import { EXIT, type ExitCode, say } from './output.ts'
import { plan } from './plan.ts'
import { loadOptions } from './rehearse-ask.ts'
import { faultOptions, rehearseFault } from './rehearse-fault.ts'
import { rehearseLoad } from './rehearse-load.ts'
import { destroy, restart } from './replicas.ts'
import { serve } from './serve.ts'
import { simulatorImage } from './simulator.ts'
import { status } from './status.ts'
import { up } from './up.ts'
import { usage, usageOptions } from './usage.ts'
import { VERSION } from './version.ts'

const INPUT_ERRORS = ['invalid_input', 'invalid_request', 'not_found']

const whole = (text: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value > 1_000_000) {
    throw new InvalidArgumentError('expected a whole number')
  }
  return value
}

/** Settings are flags of every verb; their descriptions come from the schema. */
const withSettings = (command: Command): Command => {
  for (const [key, schema] of Object.entries(SettingsSchema.shape)) {
    if (SECRET.some((secret) => secret === key)) continue
    const flag = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    const option = new Option(`--${flag} <value>`, schema.description ?? '')
    command.addOption(option)
  }
  return command
}

const settingsOf = (command: Command): Settings => {
  const answer = loadSettings(process.env, command.opts())
  if (answer.ok) return answer.settings
  throw new PenstockError('invalid_input', answer.problems.join('\n'))
}

/** Runs one command line and says how it ended. */
export const run = async (argv: readonly string[]): Promise<ExitCode> => {
  let code: ExitCode = EXIT.done
  const program = new Command('penstock')
    .description('One OpenAI-compatible endpoint over a list of GPU machines.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError('(--help shows what there is)')
  const keys = program.command('keys').description('create, list and revoke API keys')
  const rehearse = program
    .command('rehearse')
    .description('rehearse load and faults on a running Penstock')
  const parents: Readonly<Record<string, Command>> = { keys, rehearse }
  const verb = (name: string, description: string): Command => {
    const [first = '', second] = name.split(' ')
    const parent = second === undefined ? program : (parents[first] ?? program)
    const command = parent.command(second ?? first).description(description)
    return withSettings(command).exitOverride()
  }
  type Work = (settings: Settings, flags: Flags, words: readonly string[]) => Promise<ExitCode>
  const does = (command: Command, work: Work): void => {
    command.action(async () => {
      code = await work(settingsOf(command), flagsOf(command), command.args)
    })
  }
  declare(verb, does)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.badInput
    say(errorLine(error))
    const input = error instanceof PenstockError && INPUT_ERRORS.includes(error.code)
    return input ? EXIT.badInput : EXIT.failed
  }
}

export type Flags = {
  readonly json: boolean
  readonly follow: boolean
  readonly all: boolean
  readonly rehearse: boolean | null
  readonly rank: number
  readonly lines: number
  readonly consumer: string
  readonly models: readonly string[] | null
  readonly admin: boolean
  /** As commander gave them, for a verb that reads its own options. */
  readonly given: Readonly<Record<string, unknown>>
}

const flagsOf = (command: Command): Flags => {
  const given: Record<string, unknown> = command.opts()
  const models = given.models
  return {
    given,
    json: given.json === true,
    follow: given.follow === true,
    all: given.all === true,
    admin: given.admin === true,
    rehearse: typeof given.rehearse === 'boolean' ? given.rehearse : null,
    rank: typeof given.rank === 'number' ? given.rank : 0,
    lines: typeof given.lines === 'number' ? given.lines : 200,
    consumer: typeof given.consumer === 'string' ? given.consumer : '',
    models: typeof models === 'string' ? models.split(',').map((model) => model.trim()) : null,
  }
}

type Verb = (name: string, description: string) => Command
type Does = (
  command: Command,
  work: (settings: Settings, flags: Flags, words: readonly string[]) => Promise<ExitCode>,
) => void

const declare = (verb: Verb, does: Does): void => {
  declareRunning(verb, does)
  declareFleet(verb, does)
  declareRehearse(verb, does)
  const json = '--json'
  does(verb('keys list', 'list keys').option(json, 'print JSON'), (settings, flags) =>
    keysList(settings, flags),
  )
  const create = verb('keys create', 'make a key and print it once')
    .requiredOption('--consumer <name>', 'who will use it')
    .option('--models <names>', 'comma-separated; default: every model')
    .option('--admin', 'a key for the admin API instead of the gateway')
    .option(json, 'print JSON')
  does(create, (settings, flags) => keysCreate(settings, flags))
  const revoke = verb('keys revoke', 'revoke a key').argument('<id>', 'its id')
  does(revoke, (settings, _, [id = '']) => keysRevoke(settings, id))
}

const declareRunning = (verb: Verb, does: Does): void => {
  const upVerb = verb('up', 'start everything here; Ctrl-C stops all of it')
    .option('--rehearse', 'play every node by the flight simulator on this machine')
    .option('--no-rehearse', 'run the engines for real, GPU seen or not')
  does(upVerb, (settings, flags) => up(settings, flags.rehearse))
  const serveVerb = verb('serve', 'run Penstock; engines outlive it').option(
    '--rehearse',
    'play every node by the flight simulator on this machine',
  )
  does(serveVerb, (settings, flags) => serve(settings, flags.rehearse === true))
  const image = verb('simulator-image', "build the simulator's image into the Docker engines")
  does(image, (settings) => simulatorImage(settings))
  does(verb('check', 'check the files, touch nothing'), (settings) => check(settings))
  const doctorVerb = verb('doctor', 'is every node as declared?').option('--json', 'print JSON')
  does(doctorVerb, (settings, flags) => doctor(settings, flags))
}

const declareFleet = (verb: Verb, does: Does): void => {
  const planVerb = verb('plan', 'show fit, placement, commands and changes; exit 3 when any')
  does(planVerb.option('--json', 'print JSON'), (settings, flags) => plan(settings, flags))
  const applyVerb = verb('apply', 'apply the manifests through the running Penstock')
  does(applyVerb.option('--json', 'one JSON event a line'), (settings, flags) =>
    apply(settings, flags),
  )
  const statusVerb = verb('status', 'nodes, deployments, ranks').option('--json', 'print JSON')
  does(statusVerb, (settings, flags) => status(settings, flags))
  const usageVerb = usageOptions(verb('usage', 'who used what, and what it cost'))
  does(usageVerb, (settings, flags) => usage(settings, flags))
  const logsVerb = verb('logs', "an engine's log")
    .argument('<target>', 'deployment or replica: deepseek-r1, deepseek-r1/0')
    .option('--rank <n>', 'which rank', whole, 0)
    .option('--lines <n>', 'how many of the last lines', whole, 200)
    .option('--follow', 'go on until Ctrl-C')
  does(logsVerb, (settings, flags, [target = '']) => logs(settings, flags, target))
  const restartVerb = verb('restart', 'restart whole groups, drained first').argument('<target>')
  does(restartVerb, (settings, _, [target = '']) => restart(settings, target))
  const destroyVerb = verb('destroy', 'drain and stop what was deployed')
    .argument('[deployment]')
    .option('--all', 'everything')
  does(destroyVerb, (settings, flags, [target]) => destroy(settings, target ?? null, flags.all))
}

const declareRehearse = (verb: Verb, does: Does): void => {
  const load = loadOptions(verb('rehearse load', 'send synthetic load, sum up what callers saw'))
  does(load, (settings, flags) => rehearseLoad(settings, flags.given))
  const fault = faultOptions(verb('rehearse fault', 'make something go wrong: a kind, list, clear'))
  does(fault, (settings, flags, words) => rehearseFault(settings, flags.given, words))
}
