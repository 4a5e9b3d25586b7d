/**
 * The flight simulator's entry: `main.ts vllm serve …`, `main.ts python3 -m …`. The scripts in
 * bin/ call it under the names of the real programs.
 */
import { readFaults } from './faults/setting.ts'
import { readSglang, SGLANG_VERSION } from './flags/sglang.ts'
import { readVllm, VLLM_VERSION } from './flags/vllm.ts'
import { readRehearsal } from './rehearsal.ts'
import { serve } from './serve.ts'
import type { Command, Facts } from './settings.ts'
import { scriptAt } from './text/script.ts'

type Launch = {
  readonly read: (argv: readonly string[], facts: Facts) => Command
  readonly argv: readonly string[]
}

const VLLM_COMMANDS = ['chat', 'complete', 'serve', 'launch', 'bench', 'collect-env', 'run-batch']

const fail = (code: number, message: string): never => {
  process.stderr.write(`${message}\n`)
  process.exit(code)
}

/** Which engine a command line starts; anything else ends here. */
const launchOf = (program: string, argv: readonly string[]): Launch => {
  if (program === 'vllm') return vllmLaunch(argv)
  if (program !== 'python3') return fail(2, `simulator: unknown program ${program}`)
  const [dash, module = ''] = argv
  if (dash === '-m' && module === 'sglang.launch_server')
    return { read: readSglang, argv: argv.slice(2) }
  if (dash === '-m' && module === 'vllm.entrypoints.openai.api_server') {
    return { read: readVllm, argv: argv.slice(2) }
  }
  return fail(
    2,
    'python3 (flight simulator): only `-m sglang.launch_server …` and `-m ' +
      `vllm.entrypoints.openai.api_server …\` are played here, not: ${argv.slice(0, 3).join(' ')}`,
  )
}

const vllmLaunch = (argv: readonly string[]): Launch => {
  const [verb, ...rest] = argv
  if (verb === '-v' || verb === '--version') {
    process.stdout.write(`${VLLM_VERSION}\n`)
    process.exit(0)
  }
  if (verb === 'serve') return { read: readVllm, argv: rest }
  const usage = `usage: vllm [-h] [-v] {${VLLM_COMMANDS.join(',')}} ...`
  if (verb === undefined) return fail(0, usage)
  if (VLLM_COMMANDS.includes(verb)) {
    return fail(2, `vllm ${verb}: not played by the flight simulator, only \`vllm serve\` is`)
  }
  const choices = VLLM_COMMANDS.join(', ')
  return fail(
    2,
    `${usage}\nvllm: error: argument subparser: invalid choice: '${verb}' (choose from ${choices})`,
  )
}

const [program = '', ...argv] = process.argv.slice(2)
const launch = launchOf(program, argv)
const read = readRehearsal(process.env.PENSTOCK_REHEARSAL)
if (!read.ok) {
  fail(
    1,
    `${program} (flight simulator of vLLM ${VLLM_VERSION} and SGLang ${SGLANG_VERSION}): ` +
      read.message,
  )
} else {
  const { rehearsal } = read
  const planned = readFaults(process.env.PENSTOCK_FAULTS)
  if (!planned.ok) fail(1, planned.message)
  const script = scriptAt(rehearsal.script)
  if (!script.ok) fail(1, script.message)
  const command = launch.read(launch.argv, {
    maxContext: rehearsal.architecture.maxContext,
    attentionHeads: rehearsal.architecture.attentionHeads,
    memoryBytes: rehearsal.memoryBytes,
    localGpus: rehearsal.gpus.length,
    environment: process.env,
    asVersion: rehearsal.asVersion,
  })
  const faults = planned.ok ? planned.faults : []
  if (command.ok) await serve(command.settings, rehearsal, faults)
  else fail(command.code, command.message)
}
