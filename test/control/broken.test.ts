/**
 * Broken inventories and manifests, as people break them: test/golden/broken has the input, a line
 * of dashes, and what Penstock says. Parts that a case leaves out are whole. UPDATE_GOLDEN=1 writes
 * what is said now; read the difference before committing it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { issueLine, parseFiles } from '../../src/control/load.ts'
import { loadProfiles } from '../../src/control/profiles.ts'
import type { InputFile, InputFiles } from '../../src/core/admin.ts'
import type { GpuProfiles } from '../../src/core/profile.ts'

const DIRECTORY = path.join(import.meta.dirname, '../golden/broken')
const ROOT = path.join(import.meta.dirname, '../..')
const DASHES = '----------\n'

const WHOLE: Readonly<Record<string, string>> = {
  'inventory.yaml':
    'nodes:\n  h20-1: { address: 10.0.0.11, gpus: { profile: h20-96g, count: 1 } }\n',
  'manifests/a.yaml':
    'kind: Deployment\nname: qwq\nweights: { huggingface: Qwen/QwQ-32B }\n' +
    'engine: vllm\ncontext: 32768\n',
}

const filesOf = (input: string): InputFiles => {
  const given = input
    .split(/^>>> /m)
    .slice(1)
    .map((part): InputFile => {
      const end = part.indexOf('\n')
      return { path: part.slice(0, end), text: part.slice(end + 1) }
    })
  const whole = Object.entries(WHOLE).map(([name, text]) => ({ path: name, text }))
  const all = [...given, ...whole.filter((one) => !given.some(({ path }) => path === one.path))]
  return {
    inventory: all.find((file) => file.path === 'inventory.yaml') ?? null,
    manifests: all.filter((file) => file.path !== 'inventory.yaml'),
  }
}

let profiles: GpuProfiles = new Map()

beforeAll(async () => {
  const answer = await loadProfiles(path.join(ROOT, 'gpu-profiles'))
  if (!answer.ok) throw new Error(answer.issues.map(issueLine).join('\n'))
  profiles = answer.profiles
})

const said = (input: string): string => {
  const answer = parseFiles(filesOf(input), profiles)
  return answer.ok ? '' : answer.issues.map((issue) => `${issueLine(issue)}\n`).join('')
}

const cases = readdirSync(DIRECTORY).filter((name) => name.endsWith('.txt'))

describe('broken files', () => {
  test('there are at least 40 of them', () => expect(cases.length).toBeGreaterThanOrEqual(45))

  test('what the cases leave out is whole', () => expect(said('')).toBe(''))

  test.each(cases)('%s', (name) => {
    const file = path.join(DIRECTORY, name)
    const [input = '', expected = ''] = readFileSync(file, 'utf8').split(DASHES)
    const lines = said(input)
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(file, `${input}${DASHES}${lines}`)
    else expect(lines).toBe(expected)
    expect(lines).not.toBe('')
  })
})
