/**
 * The checkable rules of this repository, over its real tree. Each rule is first shown to fail on
 * a snippet that breaks it: a rule that cannot fail guards nothing. Messages are `file:line rule`.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { ERRORS } from '../src/errors.ts'
import { direction } from './support/tidy/direction.ts'
import { cycles, orphans } from './support/tidy/graph.ts'
import { PURE, purity } from './support/tidy/purity.ts'
import {
  type Finding,
  findingLine,
  lineCount,
  parse,
  readSources,
  type SourceFile,
  text,
  walk,
} from './support/tidy/source.ts'
import { anyOnly, functionLengths, LIMITS, syntax } from './support/tidy/syntax.ts'
import { lockfile, telltale, unfinished, width } from './support/tidy/text.ts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const product = readSources(root, ['src', 'runtimes'])
const tests = readSources(root, ['test'])

/** Programs that something outside the import graph starts: the CLI, the page, a container. */
const ENTRIES = [
  'src/main.ts',
  'src/console/web/main.tsx',
  'runtimes/simulator/main.ts',
  'runtimes/simulator/nvidia-smi.ts',
  'runtimes/simulator/calibration/main.ts',
  'runtimes/simulator/faults/client.ts',
]

const broken = (findings: readonly Finding[]): readonly string[] => findings.map(findingLine)

const rulesOf = (
  check: (file: SourceFile) => readonly Finding[],
  source: string,
  path = 'src/core/x.ts',
): readonly string[] => check(parse(path, source)).map(({ line, rule }) => `${line} ${rule}`)

const median = (values: readonly number[], share = 0.5): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0

const functionOf = (lines: number): string =>
  `export const f = () => {\n${'\n'.repeat(lines - 2)}}\n`

describe('size and syntax', () => {
  it.each([
    ['1 any', 'let x: any'],
    ['1 non-null assertion (!)', 'export const f = (x: string | null) => x!'],
    ['1 as', 'export const f = (x: unknown) => x as string'],
    ['1 as', 'export const f = (x: unknown) => x as unknown as string'],
    ['1 default export', 'export default 1'],
    ['2 default export', 'const a = 1\nexport { a as default }'],
    ['1 enum', 'enum A { B }'],
    ['1 export *', 'export * from "./a.ts"'],
    ['1 namespace', 'namespace A { export const b = 1 }'],
    ['1 f has 5 parameters', 'export function f(a, b, c, d, e) {}'],
    ['1 constructor has 5 parameters', 'class A { constructor(a, b, c, d, e) {} }'],
    ['1 f has 5 parameters', 'type A = { f(a: 1, b: 2, c: 3, d: 4, e: 5): void }'],
    ['1 f has 71 lines', functionOf(71)],
    ['401 file of 401 lines', '//\n'.repeat(401)],
  ])('refuses %s', (rule, source) => {
    expect(rulesOf(syntax, source)).toContain(rule)
  })

  it.each([
    'export const a = { b: 1 } as const satisfies Record<string, number>',
    'declare module "fastify" { interface A { b: 1 } }',
    'import { a as b } from "./a.ts"\nexport * as c from "./c.ts"\nexport { b as d }',
    'export const anything = "any as enum"\nexport const f = (a: 1, b: 2, c: 3, d: 4) => a !== b',
  ])('accepts %s', (source) => {
    expect(rulesOf(syntax, source)).toEqual([])
  })

  it('accepts a function and a file of exactly the limit', () => {
    expect(rulesOf(syntax, functionOf(LIMITS.functionLines))).toEqual([])
    expect(rulesOf(syntax, '//\n'.repeat(LIMITS.fileLines))).toEqual([])
  })

  it('holds in src and runtimes', () => {
    expect(broken(product.flatMap(syntax))).toEqual([])
  })

  it('keeps files and functions short on the whole', () => {
    expect(median(product.map((file) => lineCount(file.text)))).toBeLessThanOrEqual(150)
    expect(median(product.flatMap(functionLengths), 0.9)).toBeLessThanOrEqual(30)
  })

  it('keeps any out of the tests', () => {
    expect(rulesOf(anyOnly, 'let a: any\nlet b = a as string', 'test/x.test.ts')).toEqual(['1 any'])
    expect(broken(tests.flatMap(anyOnly))).toEqual([])
  })
})

describe('imports', () => {
  const graph = (edges: Readonly<Record<string, string>>): readonly SourceFile[] =>
    Object.entries(edges).map(([path, source]) => parse(path, source))

  it('finds a cycle of any length, and none made of types', () => {
    const ring = { 'src/a.ts': 'import "./b.ts"', 'src/b.ts': 'export { c } from "./c.ts"' }
    const closed = graph({ ...ring, 'src/c.ts': 'import { type A } from "./a.ts"' })
    expect(broken(cycles(closed))).toEqual([
      'src/a.ts:1 import cycle: src/a.ts -> src/b.ts -> src/c.ts',
    ])
    expect(cycles(graph({ ...ring, 'src/c.ts': 'import type { A } from "./a.ts"' }))).toEqual([])
    expect(broken(cycles(graph({ 'src/a.ts': 'await import("./a.ts")' })))).toHaveLength(1)
  })

  it('finds a file that nothing imports, and knows workers and programs', () => {
    const files = graph({
      'src/main.ts': 'import "./a.ts"\nnew Worker(new URL("./worker.ts", import.meta.url))',
      'src/a.ts': 'spawn("node", ["runtimes/simulator/run.ts"])',
      'src/worker.ts': '',
      'runtimes/simulator/run.ts': '',
      'src/alone.ts': 'import "./alone.ts"',
    })
    expect(broken(orphans(files, ['src/main.ts']))).toEqual([
      'src/alone.ts:1 nothing imports this file',
    ])
  })

  it.each([
    ['src/core/x.ts', 'import { E } from "../errors.ts"', 'core may not import src/errors.ts'],
    [
      'src/gateway/x.ts',
      'import "../control/y.ts"',
      'plug-in folder may not import src/control/y.ts',
    ],
    ['src/gateway/x.ts', 'import "../fleet.ts"', 'plug-in folder may not import src/fleet.ts'],
    [
      'src/control/x.ts',
      'import { d } from "../drivers/driver.ts"',
      'plug-in folder may not import src/drivers/driver.ts',
    ],
    [
      'src/store/x.ts',
      'import type { D } from "../drivers/driver.ts"',
      'plug-in folder may not import src/drivers/driver.ts',
    ],
    ['runtimes/x.ts', 'import "../src/errors.ts"', 'runtimes may not import src/errors.ts'],
    ['src/console/x.ts', 'import "../main.ts"', 'plug-in folder may not import src/main.ts'],
    [
      'src/control/x.ts',
      'import "dockerode"',
      'dockerode may only be imported from ^src\\/drivers\\/docker[\\w-]*\\.ts$',
    ],
    [
      'src/core/x.ts',
      'import "left-pad/a"',
      'left-pad has no home in the table of test/support/tidy/direction.ts',
    ],
  ])('%s refuses %s', (path, source, rule) => {
    expect(rulesOf(direction, source, path)).toEqual([`1 ${rule}`])
  })

  it.each([
    ['src/control/x.ts', 'import type { Driver } from "../drivers/driver.ts"'],
    ['src/control/x.ts', 'import { f } from "../fleet.ts"\nimport { z } from "zod"'],
    [
      'src/gateway/x.ts',
      'import "./y.ts"\nimport "../core/z.ts"\nimport "fastify"\nimport "node:fs"',
    ],
    ['src/main.ts', 'import "./gateway/y.ts"\nimport "../runtimes/vllm.ts"'],
  ])('%s accepts %s', (path, source) => {
    expect(rulesOf(direction, source, path)).toEqual([])
  })

  it('go only where they may, in src and runtimes', () => {
    expect(broken(product.flatMap(direction))).toEqual([])
  })

  it('make no cycle', () => {
    expect(broken(cycles(product))).toEqual([])
  })

  it('reach every file', () => {
    expect(broken(orphans(product, ENTRIES))).toEqual([])
  })
})

describe('purity of core and runtimes', () => {
  it.each([
    ['export const f = () => Date.now()', '1 pure code names Date'],
    ['export const f = (at: Date) => at', '1 pure code names Date'],
    ['export const f = () => performance.now()', '1 pure code names performance'],
    ['export const f = () => Math.random()', '1 pure code names Math.random'],
    ['setTimeout(f, 1)', '1 pure code names setTimeout'],
    ['export const p = process.env', '1 pure code names process'],
    ['console.log(1)', '1 pure code names console'],
    ['export const f = fetch', '1 pure code names fetch'],
    ['import { readFileSync } from "node:fs"', '1 pure code imports node:fs'],
    ['import { randomBytes } from "node:crypto"', '1 pure code imports node:crypto'],
  ])('refuses %s', (source, rule) => {
    expect(rulesOf(purity, source)).toContain(rule)
  })

  it('accepts the same words as mere names, assert and createHash', () => {
    const source = [
      'import assert from "node:assert"',
      'import { createHash } from "node:crypto"',
      'export type A = { process: string; fetch(): void }',
      'export const f = (a: A) => ({ console: a.process, h: createHash("sha256"), assert })',
      'export const m = Math.max(1, 2)',
    ].join('\n')
    expect(rulesOf(purity, source)).toEqual([])
  })

  it('holds', () => {
    const pure = product.filter((file) => PURE.test(file.path))
    expect(pure.length).toBeGreaterThan(10)
    expect(broken(pure.flatMap(purity))).toEqual([])
  })
})

describe('text', () => {
  it('refuses wide lines and unfinished work', () => {
    expect(rulesOf(width, `//${'x'.repeat(99)}\n`)).toEqual(['1 line of 101 columns'])
    expect(rulesOf(width, `//${'x'.repeat(98)}\n// ${'é'.repeat(97)}`)).toEqual([])
    const literal = `const a = '${'x'.repeat(99)}'`
    expect(rulesOf(width, literal, 'test/x.test.ts')).toEqual([])
    expect(rulesOf(width, literal)).toEqual(['1 line of 111 columns'])
    expect(rulesOf(unfinished, `const a = 1\n// ${'TO'}DO: more\n`)).toEqual(['2 unfinished work'])
    expect(rulesOf(unfinished, `/*\n * ${'FIX'}ME */`)).toEqual(['2 unfinished work'])
    expect(rulesOf(unfinished, `const a = '${'TO'}DO'`)).toEqual([])
  })

  it('lines are narrow in src, runtimes and test', () => {
    expect(broken([...product, ...tests].flatMap(width))).toEqual([])
  })

  it('no work is left unfinished there', () => {
    expect(broken([...product, ...tests].flatMap(unfinished))).toEqual([])
  })

  it.each([
    [['', 'work', 'main'].join('/'), 'machine path'],
    [['', 'home', 'ann', 'x'].join('/'), 'machine path'],
    [['registry', 'npmjs', 'org'].join('.'), 'registry host'],
    [['files', 'pythonhosted', 'org'].join('.'), 'registry host'],
    [`sk-ps-${'A1b2'.repeat(10)}`, 'key'],
  ])('refuses %s in a tracked file', (line, rule) => {
    expect(broken(telltale('README.md', `ok\n${line} …`))).toEqual([`README.md:2 ${rule}`])
  })

  it('accepts paths inside containers and relative ones', () => {
    const fine = '/root/.cache/huggingface /home/vllm/.cache ./network/a src/worker/x.ts /worker/x'
    expect(telltale('README.md', fine)).toEqual([])
  })

  it('no tracked file names a machine path, a registry or a key', () => {
    const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' })
      .split('\0')
      .filter((path) => path !== '' && existsSync(join(root, path)))
    const read = (path: string): readonly Finding[] =>
      telltale(path, readFileSync(join(root, path), 'utf8'))
    expect(tracked.length).toBeGreaterThan(0)
    expect(broken(tracked.flatMap(read))).toEqual([])
  })

  it('the lockfile says nothing about where packages came from', () => {
    const address = '  "resolved": "https://example.org/a.tgz",'
    expect(broken(lockfile('package-lock.json', `{\n${address}\n}`))).toHaveLength(1)
    const content = readFileSync(join(root, 'package-lock.json'), 'utf8')
    expect(broken(lockfile('package-lock.json', content))).toEqual([])
  })
})

describe('what belongs together', () => {
  it.each(['README.md', 'CHANGELOG.md', 'LICENSE', 'Makefile', '.ci/run'])('has %s', (path) => {
    expect(existsSync(join(root, path))).toBe(true)
  })

  it('every error of the table is raised somewhere', () => {
    const said = new Set<string>()
    for (const file of product.filter(({ path }) => path !== 'src/errors.ts')) {
      walk(file.program, (node) => {
        const value = node.type === 'Literal' ? text(node, 'value') : null
        if (value !== null) said.add(value)
      })
    }
    expect(Object.keys(ERRORS).filter((code) => !said.has(code))).toEqual([])
  })
})
