import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { flagTable, parseFlags } from '../../../runtimes/simulator/flags/argparse.ts'
import { readSglang } from '../../../runtimes/simulator/flags/sglang.ts'
import { readVllm } from '../../../runtimes/simulator/flags/vllm.ts'
import { vllmFlags } from '../../../runtimes/simulator/flags/vllm-table.ts'
import type { Command, Facts } from '../../../runtimes/simulator/settings.ts'

const H20_FACTS: Facts = {
  maxContext: 131_072,
  attentionHeads: 40,
  memoryBytes: 97_871 * 2 ** 20,
  localGpus: 1,
  environment: {},
}
const R1_FACTS: Facts = { ...H20_FACTS, maxContext: 163_840, attentionHeads: 128, localGpus: 8 }

const accepted = (command: Command) => {
  if (!command.ok) throw new Error(command.message)
  return command.settings
}
const refused = (command: Command) => {
  if (command.ok) throw new Error('accepted')
  return command
}
const vllm = (line: string, facts = H20_FACTS) => readVllm(line.split(' '), facts)
const sglang = (line: string, facts = R1_FACTS) => readSglang(line.split(' '), facts)

describe('argparse', () => {
  const table = flagTable(
    '--number,-n int =3; --name str; --kind str {a|b}; --on flag; --maybe-this maybe\n' +
      '--switch switch =true; --list str+; --number-two int; --size size; --part float; --j json',
  )
  const parse = (...argv: string[]) => {
    const parsed = parseFlags(table, argv, 1)
    return parsed.ok ? parsed.flags : parsed.message
  }
  const flags = (...argv: string[]) => {
    const parsed = parse(...argv)
    if (typeof parsed === 'string') throw new Error(parsed)
    return parsed
  }

  test.each([
    [['--numb', '1'], 'ambiguous option: --numb could match --number, --number-two'],
    [['--number'], 'argument --number/-n: expected one argument'],
    [['--number', '--on'], 'argument --number/-n: expected one argument'],
    [['--number', '1.5'], "argument --number/-n: invalid int value: '1.5'"],
    [['--part', 'x'], "argument --part: invalid float value: 'x'"],
    [['--kind', 'c'], "argument --kind: invalid choice: 'c' (choose from a, b)"],
    [['--list'], 'argument --list: expected at least one argument'],
    [['--on=1'], "argument --on: ignored explicit argument '1'"],
    [['--what', '--ever', 'x', 'y'], 'unrecognized arguments: --what --ever y'],
    [['--size', '1.5K'], /Decimals are not allowed with binary suffixes like K.*1.5k instead/],
    [['--j', '{'], /cannot be converted/],
  ])('%j is refused', (argv, message) => {
    const said = parse(...argv)
    if (typeof message === 'string') expect(said).toBe(message)
    else expect(said).toMatch(message)
  })

  test('values, defaults, prefixes, short forms', () => {
    expect(flags().number('--number')).toBe(3)
    expect(flags('-n5').number('--number')).toBe(5)
    expect(flags('--number=1_000').number('--number')).toBe(1000)
    expect(flags('--number', '-7').number('--number')).toBe(-7)
    expect(flags('--na', 'x').text('--name')).toBe('x')
    expect(flags('--no-switch').on('--switch')).toBe(false)
    expect(flags().on('--switch')).toBe(true)
    expect(flags('--list', 'a', 'b', '--on').list('--list')).toEqual(['a', 'b'])
    expect(flags('--maybe-this').on('--maybe-this')).toBe(true)
    expect(flags('--size', '25.6k').number('--size')).toBe(25_600)
    expect(flags('--size', '2M').number('--size')).toBe(2 * 2 ** 20)
    expect(flags('--j.a.b', '1').given('--j')).toBe(true)
    const parsed = parseFlags(table, ['model', '--on'], 1)
    expect(parsed.ok && parsed.positional).toEqual(['model'])
  })

  test('any command line ends in a value or a message, never in an exception', () => {
    const word = fc.oneof(
      fc.constantFrom('--number', '-n', '--list', '--kind', '--', '-', '--on', '--j', '='),
      fc.string({ maxLength: 12 }),
    )
    fc.assert(
      fc.property(fc.array(word, { maxLength: 12 }), (argv) => {
        const parsed = parseFlags(table, argv, 1)
        return parsed.ok || parsed.message.length > 0
      }),
      { numRuns: 2000 },
    )
  })
})

describe('vLLM', () => {
  const Recorded = z.array(
    z.object({
      names: z.array(z.string()),
      values: z.enum(['none', 'one', 'many', 'optional']),
      choices: z.array(z.string()).optional(),
    }),
  )
  const file = join(import.meta.dirname, '../../fixtures/vllm-0.32.0/flags.json')
  const recorded = Recorded.parse(JSON.parse(readFileSync(file, 'utf8')))
  const table = flagTable(vllmFlags)

  test('every flag of the real vLLM 0.32.0 is known, takes as many values, has its choices', () => {
    const differences: string[] = []
    for (const { names, values, choices } of recorded) {
      for (const name of names.filter((one) => !['-h', '--help'].includes(one))) {
        const flag = table.get(name)
        if (flag === undefined) {
          differences.push(`${name} is missing`)
          continue
        }
        const bare = flag.kind === 'flag' || flag.kind === 'switch'
        const mine = bare ? 'none' : flag.many === '' ? 'one' : 'many'
        const takes = flag.kind === 'maybe' ? 'optional' : mine
        if (takes !== values) differences.push(`${name} takes ${takes}, not ${values}`)
        const real = (choices ?? []).filter((choice) => choice !== 'None').sort()
        if (!bare && real.join() !== [...flag.choices].sort().join()) {
          differences.push(`${name} has other choices`)
        }
      }
    }
    expect(differences).toEqual([])
  })

  test('a realistic line for QwQ on one H20', () => {
    const settings = accepted(
      vllm(
        'Qwen/QwQ-32B --served-model-name qwq-32b qwq --host 127.0.0.1 --port=8100 -tp 1 ' +
          '--max-model-len 64K --gpu-memory-utilization 0.92 --kv-cache-dtype fp8 ' +
          '--max-num-seqs 128 --enable-auto-tool-choice --tool-call-parser hermes ' +
          '--reasoning-parser deepseek_r1 --enable-prompt-tokens-details --no-enable-prefix-caching ' +
          '--override-generation-config {"temperature":0.6} --shutdown-timeout 30 --seed 1 ' +
          '--max_num_batched_tokens 4096 --speculative-config.method ngram',
      ),
    )
    expect(settings).toMatchObject({
      servedNames: ['qwq-32b', 'qwq'],
      port: 8100,
      contextTokens: 65_536,
      kvType: 'fp8',
      runningMax: 128,
      batchTokensMax: 4096,
      prefixCache: false,
      toolParser: 'hermes',
      reasoningParser: 'deepseek_r1',
      shutdownTimeoutMs: 30_000,
      rendezvous: null,
    })
  })

  test('both ranks of R1 on two nodes, and the environment', () => {
    const line =
      'deepseek-ai/DeepSeek-R1 --tensor-parallel-size 16 --nnodes 2 --node-rank 1 --headless ' +
      '--master-addr 10.0.0.21 --master-port 29501 --trust-remote-code'
    const environment = { VLLM_ENGINE_READY_TIMEOUT_S: '3600', VLLM_HTTP_TIMEOUT_KEEP_ALIVE: '120' }
    expect(accepted(vllm(line, { ...R1_FACTS, environment }))).toMatchObject({
      tensor: 16,
      nodes: 2,
      nodeRank: 1,
      headless: true,
      rendezvous: { host: '10.0.0.21', port: 29_501 },
      readyTimeoutMs: 3_600_000,
      keepAliveMs: 120_000,
    })
  })

  test('argparse speaks as the real one', () => {
    expect(refused(vllm('m --port many'))).toEqual({
      ok: false,
      code: 2,
      message:
        'usage: vllm serve [model_tag] [options]\n' +
        "vllm serve: error: argument --port: invalid int value: 'many'",
    })
    const unknown = refused(vllm('m --no-such-flag 1'))
    expect(unknown.code).toBe(2)
    expect(unknown.message).toMatch(/^usage: vllm \[-h\]/)
    expect(unknown.message).toMatch(/\nvllm: error: unrecognized arguments: --no-such-flag 1$/)
  })

  test.each([
    [
      'm -tp 3',
      R1_FACTS,
      /attention heads \(128\) must be divisible by tensor parallel size \(3\)/,
    ],
    ['m -tp 2', H20_FACTS, /World size \(2\) is larger than the number of available GPUs \(1\)/],
    ['m -tp 3 --nnodes 2', R1_FACTS, /World size \(3\) must be divisible by nnodes \(2\)/],
    ['m --max-model-len 200000', H20_FACTS, /greater than the derived max_model_len/],
    ['m --headless --api-server-count 1', H20_FACTS, /--api-server-count=1 cannot be used with/],
    ['m --enable-auto-tool-choice', H20_FACTS, /requires --tool-call-parser/],
    ['m -tp 16 -n 2 --distributed-executor-backend ray', R1_FACTS, /only supported with the mp/],
    ['m --gpu-memory-utilization 1.2', H20_FACTS, /gpu_memory_utilization/],
    ['m --max-num-batched-tokens 64 --max-num-seqs 128', H20_FACTS, /greater than or equal/],
    ['m -tp 16 --nnodes 2 --node-rank 1', R1_FACTS, /needs --headless/],
  ])('%s dies', (line, facts, message) => {
    const command = refused(vllm(line, facts))
    expect(command.message).toMatch(message)
    expect(command.code).toBe(1)
  })
})

describe('SGLang', () => {
  test('both ranks of R1 on two nodes', () => {
    const line =
      '--model-path deepseek-ai/DeepSeek-R1 --served-model-name deepseek-r1 --tp 16 --nnodes 2 ' +
      '--node-rank 0 --dist-init-addr 10.0.0.21:29500 --trust-remote-code --host 0.0.0.0 ' +
      '--port 30000 --enable-metrics --enable-cache-report --reasoning-parser deepseek-r1 ' +
      '--tool-call-parser deepseekv3 --context-length 65536 --watchdog-timeout 1800 ' +
      '--mem-fraction-static 0.85 --dist-timeout 3600 --decode-log-interval 10'
    expect(accepted(sglang(line))).toMatchObject({
      tensor: 16,
      servedNames: ['deepseek-r1'],
      rendezvous: { host: '10.0.0.21', port: 29_500 },
      contextTokens: 65_536,
      memoryFraction: 0.85,
      metrics: true,
      cachedTokensInUsage: true,
      decodeLogInterval: 10,
      watchdogMs: 1_800_000,
      rendezvousTimeoutMs: 3_600_000,
    })
  })

  test('defaults: loopback, 30000, no metrics', () => {
    const settings = accepted(sglang('--model m'))
    expect(settings).toMatchObject({ host: '127.0.0.1', port: 30_000, metrics: false })
  })

  test.each([
    ['--tp 8', 2, /the following arguments are required: --model-path/],
    ['--model m --no-such-flag', 2, /launch_server.py: error: unrecognized arguments/],
    ['--model m --reasoning-parser deepseek_r1', 2, /invalid choice: 'deepseek_r1'/],
    ['--model m --pp 2', 2, /ambiguous option: --pp could match/],
    ['--model m --tp 16 --nnodes 2', 1, /--dist-init-addr is required/],
    ['--model m --tp 16', 1, /invalid device ordinal/],
    ['--model m --context-length 200000', 1, /greater than the derived context_length/],
    ['--model m --tp 16 --nnodes 2 --dist-init-addr nowhere', 1, /cannot read nowhere/],
  ])('%s is refused', (line, code, message) => {
    const command = refused(sglang(line))
    expect(command.message).toMatch(message)
    expect(command.code).toBe(code)
  })
})
