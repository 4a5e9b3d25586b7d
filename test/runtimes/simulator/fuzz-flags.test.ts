/** 2,000 mutated command lines an engine: an answer or argparse's refusal, never an exception. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { parseFlags } from '../../../runtimes/simulator/flags/argparse.ts'
import { readSglang } from '../../../runtimes/simulator/flags/sglang.ts'
import { flagsAt, VERSIONS } from '../../../runtimes/simulator/flags/versions.ts'
import { readVllm } from '../../../runtimes/simulator/flags/vllm.ts'
import type { Command, Engine, Facts } from '../../../runtimes/simulator/settings.ts'
import { Random } from '../../../runtimes/simulator/text/random.ts'
import { hasProgram, requirePart } from '../../support/parts.ts'
import { cleanUp, rehearsal, Simulated, stopAll } from './support.ts'

afterEach(stopAll)
afterAll(cleanUp)

const LINES = 2000
const SEED = 20_261_124

/** Lines as Penstock and operators write them; `vllm serve` and the module stand before. */
const VALID: Readonly<Record<Engine, readonly string[]>> = {
  vllm: [
    'Qwen/QwQ-32B --served-model-name qwq --host 127.0.0.1 --port 8100 -tp 1 --max-model-len 64K',
    'm --tensor-parallel-size 16 --nnodes 2 --node-rank 1 --headless --master-addr 10.0.0.21',
    'm --enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser deepseek_r1',
    'm --override-generation-config {"temperature":0.6} --no-enable-prefix-caching -q fp8',
    'm --max-num-batched-tokens=4096 --max-num-seqs=128 --enable-chunked-prefill --seed -1',
    'm --api-key a b --allowed-origins ["*"] --hf-token --gpu-memory-utilization .9',
  ],
  sglang: [
    '--model-path m --served-model-name r1 --tp 16 --nnodes 2 --node-rank 0 --dist-init-addr h:5',
    '--model-path m --port 30000 --host 0.0.0.0 --enable-metrics --context-length 65536 --tp 8',
    '--model-path=m --mem-fraction-static 0.85 --chunked-prefill-size -1 --schedule-policy lpm',
    '--model m --bucket-time-to-first-token .1 .2 --max-queued-requests 5 --disable-radix-cache',
    '--model-path m --reasoning-parser deepseek-r1 --tool-call-parser deepseekv3 --dp 2 --tp 2',
  ],
}

const VALUES = [
  ...['', ' ', '-', '--', '-1', '0', '1', '1.5', '1e400', 'nan', '-inf', '9'.repeat(400), '0x10'],
  ...['1_000', '64k', '1.5K', 'auto', 'true', 'None', '{}', '{"a":', '[]', 'ümlaut', '模型', '🦾'],
  ...[
    '99999',
    '-5',
    'a b',
    '\u0000',
    '\n',
    "'",
    '"',
    '%s',
    '$(x)',
    '../..',
    '=',
    '-x',
    '--no-',
    '\ud800',
  ],
]

/** Well-formed, and wrong in what they say together. */
const CONTRADICTIONS: Readonly<Record<Engine, readonly string[]>> = {
  vllm: [
    ...['-tp 3', '-tp 0', '-pp 7', '--nnodes 3', '--node-rank 5', '--max-model-len 99999999'],
    ...['--gpu-memory-utilization 7', '--max-num-batched-tokens 1', '--headless'],
    ...['--enable-auto-tool-choice', '--port 99999', '--api-server-count 2', '--nnodes 0'],
    ...['--distributed-executor-backend ray', '--master-port -1'],
  ],
  sglang: [
    ...[
      '--tp 7',
      '--tp 0',
      '--pp-size 3',
      '--nnodes 3',
      '--node-rank 9',
      '--context-length 999999',
    ],
    ...['--dist-init-addr nonsense', '--dist-init-addr h:99999', '--port 99999', '--port -1'],
    ...['--enable-dp-attention --dp 3', '--nnodes 0', '--nnodes 2'],
  ],
}

const oneOf = <T>(random: Random, list: readonly T[], fallback: T): T =>
  list[random.below(list.length)] ?? fallback

const mutate = (argv: string[], names: readonly string[], random: Random): void => {
  const at = random.below(argv.length + 1)
  const name = oneOf(random, names, '--port')
  const value = oneOf(random, VALUES, '')
  const kinds: readonly (() => void)[] = [
    () => argv.splice(at, 0, name, value),
    () => argv.splice(at, 0, `${name}=${value}`),
    () => argv.splice(at, 0, name),
    () => argv.splice(at, 0, name.slice(0, 3 + random.below(name.length))),
    () => argv.splice(at, 0, `--${value}`, value),
    () => argv.splice(at, 0, `--no-${name.slice(2)}`),
    () => argv.splice(at, 1),
    () => argv.splice(at, 1, value),
    () => argv.push(...argv.slice(at)),
    () => argv.splice(at, 0, name.replaceAll('-', '_').replace('__', '--'), value),
    () => argv.splice(at, 0, `${name}.${value}`, value),
    () => argv.splice(at, 0, `-${value}`),
    () => argv.reverse(),
  ]
  oneOf(random, kinds, () => {})()
}

const linesOf = (engine: Engine, count = LINES): readonly (readonly string[])[] => {
  const random = new Random(SEED)
  const names = [...flagsAt(engine, VERSIONS[engine].at(-1) ?? '').all.keys()]
  return Array.from({ length: count }, () => {
    const argv = oneOf(random, VALID[engine], '').split(' ')
    const extra = oneOf(random, CONTRADICTIONS[engine], '')
    if (random.next() < 0.5) argv.push(...extra.split(' '))
    for (let left = random.below(5); left > 0; left -= 1) mutate(argv, names, random)
    return argv
  })
}

const FACTS: Facts = {
  maxContext: 131_072,
  attentionHeads: 128,
  memoryBytes: 97_871 * 2 ** 20,
  localGpus: 8,
  environment: {},
}

const read = (engine: Engine, argv: readonly string[], facts = FACTS): Command =>
  engine === 'vllm' ? readVllm(argv, facts) : readSglang(argv, facts)

/** What a server could not be started with. */
const unusable = (command: Command): string | null => {
  if (!command.ok) {
    const { code, message } = command
    if (code !== 1 && code !== 2) return `exit code ${code}`
    if (code === 1) return /Error: |1 validation error for /.test(message) ? null : message
    const argparse = /^usage: [\s\S]*\n(vllm|vllm serve|launch_server\.py): error: ./.test(message)
    return argparse || message.startsWith('flight simulator: ') ? null : message
  }
  const { settings } = command
  const wrong = Object.entries(settings).filter(
    ([key, value]) => typeof value === 'number' && (Number.isNaN(value) || isOff(key, value)),
  )
  return wrong.length === 0 ? null : JSON.stringify(wrong)
}

/** Counts below one, or ports that no socket takes. */
const isOff = (key: string, value: number): boolean =>
  key === 'port'
    ? !Number.isInteger(value) || value < 0 || value > 65_535
    : ['tensor', 'pipeline', 'nodes', 'contextTokens', 'blockTokens', 'runningMax'].includes(key) &&
      !(value >= 1 && Number.isSafeInteger(value))

describe.each(['vllm', 'sglang'] as const)('%s', (engine) => {
  test(`${LINES} lines: settings that can be served with, or a refusal with 1 or 2`, () => {
    const bad: string[] = []
    const outcomes = { accepted: 0, 1: 0, 2: 0 }
    for (const argv of linesOf(engine)) {
      const command = read(engine, argv)
      if (command.ok) outcomes.accepted += 1
      else if (command.code === 1) outcomes[1] += 1
      else outcomes[2] += 1
      const wrong = unusable(command)
      if (wrong !== null) bad.push(`${JSON.stringify(argv)}: ${wrong.slice(0, 300)}`)
    }
    expect(bad).toEqual([])
    // The mutations reach every kind of end.
    expect(Math.min(outcomes.accepted, outcomes[1], outcomes[2])).toBeGreaterThan(50)
  })

  test('the same lines at every version', () => {
    const bad: string[] = []
    for (const asVersion of VERSIONS[engine]) {
      for (const argv of linesOf(engine, 300)) {
        const wrong = unusable(read(engine, argv, { ...FACTS, asVersion }))
        if (wrong !== null) bad.push(`${asVersion} ${JSON.stringify(argv)}: ${wrong.slice(0, 300)}`)
      }
    }
    expect(bad).toEqual([])
  })

  test.skipIf(!requirePart('python3', hasProgram('python3')))(
    "CPython's argparse says the same of each line",
    () => {
      const { all } = flagsAt(engine, VERSIONS[engine].at(-1) ?? '')
      const positionals = engine === 'vllm' ? 1 : 0
      // `--x=--` differs from one CPython to the next.
      const lines = linesOf(engine).filter((argv) => !argv.some((a) => /=--$|\0|\ud800/.test(a)))
      const script = join(import.meta.dirname, 'argparse-oracle.py')
      const ran = spawnSync('python3', [script], {
        input: JSON.stringify({ flags: [...new Set(all.values())], positionals, lines }),
        encoding: 'utf8',
        maxBuffer: 64 * 2 ** 20,
      })
      expect(ran.stderr).toBe('')
      const real = z.array(z.string().nullable()).parse(JSON.parse(ran.stdout))
      const different = lines.flatMap((argv, index) => {
        const parsed = parseFlags(all, argv, positionals, { dotted: false })
        const mine = parsed.ok ? null : parsed.message
        const theirs = real[index] ?? null
        return same(mine, theirs)
          ? []
          : [`${JSON.stringify(argv)}\n  mine:   ${mine}\n  theirs: ${theirs}`]
      })
      expect(different.length, different.slice(0, 12).join('\n')).toBe(0)
    },
  )

  test('twenty of them as processes: the same code, the same words, no stack trace', async () => {
    const facts = { ...FACTS, localGpus: 1, attentionHeads: 40, environment: {} }
    const refused = linesOf(engine)
      .filter((argv) => !argv.some((argument) => /\0|\ud800/.test(argument)))
      .map((argv) => ({ argv, command: read(engine, argv, facts) }))
      .filter(({ command }) => !command.ok)
      .filter((_, index) => index % 40 === 0)
      .slice(0, 20)
    expect(refused).toHaveLength(20)
    const before = engine === 'vllm' ? ['serve'] : ['-m', 'sglang.launch_server']
    for (const { argv, command } of refused) {
      const program = engine === 'vllm' ? 'vllm' : 'python3'
      const one = new Simulated(program, [...before, ...argv], rehearsal())
      const code = await one.ended()
      expect(command).toEqual({ ok: false, code, message: one.output.replace(/\n$/, '') })
    }
  })
})

const same = (mine: string | null, theirs: string | null): boolean => {
  const [a, b] = [comparable(mine) || null, comparable(theirs) || null]
  return a === b || (a !== null && b !== null && (a === 'refused' || b === 'refused'))
}

/** Versions of CPython differ in how they list choices, and vLLM in one conversion's words. */
const comparable = (message: string | null): string | null =>
  message === null
    ? null
    : message
        // From 3.12.7 on an ambiguous option is found when its turn comes, before that at once.
        .replace(/^ambiguous option[\s\S]*$/, 'refused')
        .replace(/(?<=[ :])--(?= |$)/g, '')
        .replace(/ +/g, ' ')
        .trim()
        .replace(/^unrecognized arguments:$/, '')
        .replace(/ \(choose from [\s\S]*$/, '')
        .replace(/cannot be converted[\s\S]*$/, '')
        .replace(/Decimals are not allowed[\s\S]*$/, '')
