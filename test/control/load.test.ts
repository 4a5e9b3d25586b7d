/** What stands between a file on disk and its text, hostile text, and what a whole load yields. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { issueLine, type LoadAnswer, parseFiles } from '../../src/control/load.ts'
import { localArchitecture } from '../../src/control/local.ts'
import { loadProfiles } from '../../src/control/profiles.ts'
import { loadFromDisk, readInputs } from '../../src/control/read.ts'
import type { Issue } from '../../src/core/admin.ts'
import type { GpuProfiles } from '../../src/core/profile.ts'

const ROOT = path.join(import.meta.dirname, '../..')
const INVENTORY = `nodes:
  h20-1:
    address: 10.0.0.11
    gpus: { profile: h20-96g, count: 1 }
`
const MANIFEST = `kind: Deployment
name: qwq
weights: { huggingface: Qwen/QwQ-32B }
engine: vllm
context: 32768
replicas: 1
`
const GATEWAY = `kind: Gateway
routes:
  - { model: qwq-32b, to: qwq, limits: [{ per: consumer, tokensPerMinute: 60000 }] }
keepAlive: 20s
`

let profiles: GpuProfiles = new Map()
let home = ''

beforeAll(async () => {
  home = mkdtempSync(path.join(tmpdir(), 'penstock-load-'))
  const answer = await loadProfiles(path.join(ROOT, 'gpu-profiles'))
  if (!answer.ok) throw new Error(lines(answer.issues).join('\n'))
  profiles = answer.profiles
})

afterAll(() => rmSync(home, { recursive: true, force: true }))

const lines = (issues: readonly Issue[]): string[] =>
  issues.map((issue) => issueLine(issue).replaceAll(`${home}/`, ''))

const load = (inventory: string, ...manifests: string[]): LoadAnswer =>
  parseFiles(
    {
      inventory: { path: 'inventory.yaml', text: inventory },
      manifests: manifests.map((text, index) => ({ path: `manifests/${index}.yaml`, text })),
    },
    profiles,
  )

const said = (answer: LoadAnswer): string[] => (answer.ok ? [] : lines(answer.issues))

/** A directory of its own with an inventory and manifests, and how `penstock check` finds them. */
const disk = (name: string, files: Readonly<Record<string, string | Uint8Array>>) => {
  const directory = path.join(home, name)
  mkdirSync(path.join(directory, 'manifests'), { recursive: true })
  for (const [file, text] of Object.entries(files)) writeFileSync(path.join(directory, file), text)
  return {
    directory,
    inventoryPath: path.join(directory, 'inventory.yaml'),
    manifestsDir: path.join(directory, 'manifests'),
  }
}

const WHOLE = { 'inventory.yaml': INVENTORY, 'manifests/a.yaml': MANIFEST }

describe('whole files', () => {
  test('the examples of the repository', async () => {
    const answer = await loadFromDisk(
      { inventoryPath: path.join(ROOT, 'inventory.yaml'), manifestsDir: `${ROOT}/manifests` },
      profiles,
    )
    expect(said(answer)).toEqual([])
    if (!answer.ok) return
    const { desired } = answer
    expect(desired.inventory.nodes.map(({ name }) => name)).toEqual(['h20-1', 'h20-8a', 'h20-8b'])
    expect(desired.deployments.map(({ name }) => name)).toEqual(['deepseek-r1', 'qwq-32b'])
    expect(desired.gateway.routes.map(({ model }) => model)).toEqual(['qwq-32b', 'deepseek-r1'])
  })

  test('without a Gateway each deployment is a model of its own name', () => {
    const answer = load(INVENTORY, MANIFEST, MANIFEST.replace('qwq', 'second'))
    expect(answer.ok && answer.desired.gateway.routes.map(({ model, to }) => [model, to])).toEqual([
      ['qwq', 'qwq'],
      ['second', 'second'],
    ])
    const settings = load(INVENTORY, MANIFEST, 'kind: Gateway\nkeepAlive: 20s\n')
    expect(settings.ok && settings.desired.gateway).toMatchObject({
      keepAlive: 20_000,
      routes: [{ model: 'qwq', firstTokenTimeout: 1_800_000 }],
    })
  })

  test('no manifests at all: nothing is wanted', () => {
    const answer = load(INVENTORY)
    expect(answer.ok && answer.desired.deployments).toEqual([])
  })

  test.each([
    ['a byte order mark', `\uFEFF${INVENTORY}`, `\uFEFF${MANIFEST}`],
    ['CRLF', INVENTORY.replaceAll('\n', '\r\n'), MANIFEST.replaceAll('\n', '\r\n')],
    ['no newline at the end', INVENTORY.trimEnd(), MANIFEST.trimEnd()],
    ['document markers', `---\n${INVENTORY}...\n`, `---\n${MANIFEST}---\n`],
    ['JSON', '{"nodes":{"a":{"address":"::1","device":"cpu"}}}', MANIFEST],
    ['a node named no', INVENTORY.replace('h20-1', 'no'), MANIFEST],
    ['only comments', INVENTORY, '# switched off\n'],
    ['several in one file', INVENTORY, `${MANIFEST}---\n${GATEWAY}`],
  ])('%s is accepted', (_, inventory, manifest) => {
    expect(said(load(inventory, manifest))).toEqual([])
  })

  test('anchors and merge keys: what is given wins over what is merged', () => {
    const answer = load(
      `nodes:
  a: &base { address: 10.0.0.1, gpus: &gpus { profile: h20-96g, count: 8 } }
  b: { <<: *base, address: 10.0.0.2 }
  c: { <<: [*base, { rehearse: true }], address: 10.0.0.3, gpus: { <<: *gpus, count: 1 } }
`,
      MANIFEST,
    )
    expect(said(answer)).toEqual([])
    if (!answer.ok) return
    const { nodes } = answer.desired.inventory
    expect(nodes.map(({ address, gpus, rehearse }) => [address, gpus?.count, rehearse])).toEqual([
      ['10.0.0.1', 8, false],
      ['10.0.0.2', 8, false],
      ['10.0.0.3', 1, true],
    ])
  })

  test('PEM files are found beside the inventory', () => {
    const tls = 'docker: tcp://h:2376, tls: { ca: tls/ca.pem, cert: /etc/cert.pem, key: key.pem }, '
    const answer = parseFiles(
      {
        inventory: {
          path: '/etc/penstock/inventory.yaml',
          text: `nodes: { a: { address: h, ${tls} device: cpu } }`,
        },
        manifests: [],
      },
      profiles,
    )
    expect(answer.ok && answer.desired.inventory.nodes[0]?.tls).toEqual({
      ca: '/etc/penstock/tls/ca.pem',
      cert: '/etc/cert.pem',
      key: '/etc/penstock/key.pem',
    })
  })
})

describe('files on disk', () => {
  const check = async (paths: { inventoryPath: string; manifestsDir: string }) =>
    said(await loadFromDisk(paths, profiles))

  test('whole ones, other files and dot files beside them', async () => {
    const paths = disk('fine', { ...WHOLE, 'manifests/notes.txt': 'x', 'manifests/.a.yaml': '\t' })
    writeFileSync(path.join(paths.manifestsDir, 'gateway.yml'), GATEWAY)
    expect(await check(paths)).toEqual([])
    const { files } = await readInputs(paths)
    expect(files.manifests.map((file) => path.basename(file.path))).toEqual([
      'a.yaml',
      'gateway.yml',
    ])
  })

  test('directories and files in each other’s place', async () => {
    const paths = disk('places', WHOLE)
    mkdirSync(path.join(paths.manifestsDir, 'dir.yaml'))
    expect(await check({ ...paths, inventoryPath: paths.manifestsDir })).toEqual([
      'places/manifests:1:1: is a directory: expected a file',
      'places/manifests/dir.yaml:1:1: is a directory: expected a file',
    ])
    expect(await check({ ...paths, manifestsDir: paths.inventoryPath })).toEqual([
      'places/inventory.yaml:1:1: it, or a part of its path, is not a directory',
    ])
  })

  test('nothing there', async () => {
    const paths = disk('nothing', {})
    expect(await check(paths)).toEqual(['nothing/inventory.yaml:1:1: no such file or directory'])
    expect(await check({ ...paths, manifestsDir: path.join(home, 'nowhere') })).toEqual([
      'nothing/inventory.yaml:1:1: no such file or directory',
      'nowhere:1:1: no such file or directory',
    ])
    const empty = disk('empty', { 'inventory.yaml': INVENTORY })
    expect(await check(empty)).toEqual([
      'empty/manifests:1:1: holds no manifest: expected files *.yaml or *.yml',
    ])
  })

  test('50 MB is refused without being read', async () => {
    const paths = disk('large', WHOLE)
    const handle = await open(path.join(paths.manifestsDir, 'large.yaml'), 'w')
    // A sparse file: the size is real, the blocks are not.
    await handle.truncate(50_000_000)
    await handle.close()
    expect(await check(paths)).toEqual([
      'large/manifests/large.yaml:1:1: is 47.7 MiB large: expected at most 1 MiB',
    ])
  })

  test('other encodings', async () => {
    const paths = disk('encodings', {
      'inventory.yaml': Buffer.from(`\uFEFF${INVENTORY}`, 'utf16le'),
      'manifests/a.yaml': MANIFEST,
      'manifests/latin1.yaml': Buffer.from('# größer\nname: é\n', 'latin1'),
      'manifests/cut.yaml': Buffer.from('# ein schönes ö').subarray(0, -1),
    })
    expect(await check(paths)).toEqual([
      'encodings/inventory.yaml:1:1: is UTF-16: save it as UTF-8',
      'encodings/manifests/cut.yaml:1:15: is not UTF-8: byte 0xc3; save it as UTF-8',
      'encodings/manifests/latin1.yaml:1:5: is not UTF-8: byte 0xf6; save it as UTF-8',
    ])
  })

  test('links that lead round, links that lead nowhere, links that lead to a file', async () => {
    const paths = disk('links', WHOLE)
    const link = (to: string, name: string) => symlinkSync(to, path.join(paths.manifestsDir, name))
    link('round.yaml', 'round.yaml')
    link('gone', 'gone.yaml')
    link('../gateway', 'gateway.yaml')
    writeFileSync(path.join(paths.directory, 'gateway'), GATEWAY)
    expect(await check(paths)).toEqual([
      'links/manifests/gone.yaml:1:1: no such file or directory',
      'links/manifests/round.yaml:1:1: symbolic links lead round in a circle',
    ])
  })

  test('pipes and devices are not waited for', async () => {
    const paths = disk('pipes', WHOLE)
    const pipe = path.join(paths.manifestsDir, 'pipe.yaml')
    expect(spawnSync('mkfifo', [pipe]).status).toBe(0)
    symlinkSync('/dev/zero', path.join(paths.manifestsDir, 'zero.yaml'))
    expect(await check(paths)).toEqual([
      'pipes/manifests/pipe.yaml:1:1: is not a regular file',
      'pipes/manifests/zero.yaml:1:1: is not a regular file',
    ])
  })

  test('no permission', async () => {
    const paths = disk('secret', WHOLE)
    chmodSync(home, 0o755)
    chmodSync(paths.inventoryPath, 0)
    // Root may read everything, so for this once the process is nobody.
    const root = process.geteuid?.() === 0
    if (root) process.seteuid?.(65_534)
    try {
      expect(await check(paths)).toEqual(['secret/inventory.yaml:1:1: no permission to read it'])
    } finally {
      if (root) process.seteuid?.(0)
    }
  })

  test('too many manifests', async () => {
    const paths = disk('many', WHOLE)
    for (let index = 0; index < 1001; index += 1) {
      writeFileSync(path.join(paths.manifestsDir, `${index}.yaml`), '')
    }
    expect(await check(paths)).toEqual(['many/manifests:1:1: holds more than 1000 YAML files'])
  })

  test('a broken profile', async () => {
    const directory = path.join(home, 'profiles')
    mkdirSync(directory)
    writeFileSync(
      path.join(directory, 'x.yaml'),
      'names: NVIDIA X\nmemoryBytes: 96GB\nbf16flops: 1\n',
    )
    const answer = await loadProfiles(directory)
    expect(answer.ok ? [] : lines(answer.issues)).toEqual([
      'profiles/x.yaml:1:1: bandwidthBytesPerSecond: missing: expected a map with value, source or verified',
      'profiles/x.yaml:1:1: bf16Flops: missing: expected a map with value, source or verified',
      'profiles/x.yaml:1:1: interconnectBytesPerSecond: missing: expected a map with value, source or verified',
      'profiles/x.yaml:1:1: powerLimitWatts: missing: expected a map with value, source or verified',
      'profiles/x.yaml:1:8: names: expected a list, got "NVIDIA X"',
      'profiles/x.yaml:2:14: memoryBytes: expected a map with value, source or verified, got "96GB"',
      'profiles/x.yaml:3:1: bf16flops: unknown key (did you mean "bf16Flops"?)',
    ])
  })
})

describe('weights on this machine', () => {
  const config = {
    architectures: ['Qwen2ForCausalLM'],
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 256,
    max_position_embeddings: 2048,
    torch_dtype: 'float32',
  }
  const local = (where: string): string =>
    MANIFEST.replace('huggingface: Qwen/QwQ-32B', `path: ${where}`).replace('32768', '2048')

  test('a checkpoint says its own shape, links of a hub cache are followed', () => {
    const directory = path.join(home, 'tiny')
    mkdirSync(directory)
    writeFileSync(path.join(directory, 'config.json'), JSON.stringify(config))
    writeFileSync(path.join(home, 'blob'), Buffer.alloc(3000))
    symlinkSync('../blob', path.join(directory, 'model-00001-of-00002.safetensors'))
    writeFileSync(path.join(directory, 'model-00002-of-00002.safetensors'), Buffer.alloc(500))
    const answer = load(INVENTORY, local(directory))
    expect(said(answer)).toEqual([])
    expect(answer.ok && answer.desired.deployments[0]?.architecture).toMatchObject({
      weightBytes: 3500,
      layers: 2,
      headDimension: 16,
      maxContext: 2048,
      weightsType: 'fp32',
    })
    const below = load(INVENTORY.replace('address', `weights: ${home}\n    address`), local('tiny'))
    expect(said(below)).toEqual([])
  })

  test('one that is not understood says why', () => {
    const directory = path.join(home, 'odd')
    mkdirSync(directory)
    expect(localArchitecture(directory)).toBeNull()
    const file = path.join(directory, 'config.json')
    writeFileSync(file, JSON.stringify({ architectures: ['MambaForCausalLM'] }))
    const weights = path.join(directory, 'model.safetensors')
    expect(said(load(INVENTORY, local(directory)))).toEqual([
      `manifests/0.yaml:3:18: weights.path: odd: no *.safetensors beside config.json`,
      `manifests/0.yaml:3:18: weights.path: the shape of odd is not known here: add an architecture`,
    ])
    writeFileSync(weights, 'x')
    expect(localArchitecture(directory)).toEqual({
      ok: false,
      reason: 'config.json is of a MambaForCausalLM, whose memory needs are not known',
    })
    writeFileSync(file, '{"architectures": [')
    expect(localArchitecture(directory)).toEqual({ ok: false, reason: 'config.json is not JSON' })
  })

  test('paths that cannot be are no reason to fail', () => {
    expect(localArchitecture('/\0')).toMatchObject({ ok: false })
    expect(localArchitecture(`/${'x'.repeat(5000)}`)).toMatchObject({ ok: false })
    expect(localArchitecture('/dev/null')).toBeNull()
  })
})

describe('hostile text', () => {
  const wide = (line: string) => line.repeat(Math.floor((1024 * 1024) / line.length))

  test.each([
    ['alias bomb', `a: &a [x,x,x,x,x,x,x,x,x]\n${bomb()}`, /more than 100000 values once aliases/],
    ['deep lists', '['.repeat(100_000), /nested deeper than 64 levels/],
    ['deep maps', '{a: '.repeat(100_000), /nested deeper than 64 levels/],
    ['deep blocks', '- '.repeat(100_000), /nested deeper than 64 levels/],
    ['NUL', 'nodes:\n  a\0: 1\n', /^inventory.yaml:2:4: character U\+0000 is not allowed/],
    ['half a surrogate pair', 'nodes: "\uD800"', /character U\+D800 is not allowed/],
    ['escape sequences', 'nodes: \u001b[31m', /character U\+001B is not allowed/],
    ['over a megabyte', `# ${wide('x')}`, /larger than 1 MiB/],
    [
      'a stray directive at the end',
      `${INVENTORY}...\n%x\n`,
      /^inventory.yaml:6:1: not valid YAML/,
    ],
    ['many entries', wide('a: 1\n'), /too many entries for one file/],
    ['many closing brackets', wide('}]'), /not valid YAML|too many/],
    ['many directives', wide('%x\n'), /too many entries|directive/],
    ['a very long text', `nodes: ${'x'.repeat(1_000_000)}`, /expected a map, got "x{60}…"/],
    ['a very long key', `? ${'x'.repeat(500_000)}\n: 1`, /x{60}: unknown key/],
    [
      'control characters in a quoted key',
      '"a\\u0000\\nb\\u2028": 1',
      /a\\u0000\\u000ab\\u2028: unk/,
    ],
  ])('%s', (_, text, expected) => {
    const issues = said(load(text, MANIFEST))
    expect(issues.join('\n')).toMatch(expected)
    expect(issues.length).toBeLessThanOrEqual(200)
    for (const line of issues) expect(line.length).toBeLessThan(1500)
  })

  test('thousands of mistakes are counted, not listed', () => {
    const many = Array.from({ length: 3000 }, (_, index) => `  n${index}: { adress: 1 }\n`)
    const issues = said(load(`nodes:\n${many.join('')}`, MANIFEST, 'kind: Gateway\nx: 1\n'))
    expect(issues.length).toBeLessThanOrEqual(200)
    expect(issues).toContain(
      'manifests/1.yaml:2:1: x: unknown key; known here: kind, routes, consumers, backends, maxBody or keepAlive',
    )
  })
})

/** The "billion laughs" of YAML: nine levels of nine aliases each. */
function bomb(): string {
  const names = 'abcdefghi'
  return [...names]
    .slice(1)
    .map((name, index) => {
      const alias = `*${names[index]}`
      return `${name}: &${name} [${Array(9).fill(alias).join(',')}]\n`
    })
    .join('')
}

describe('any text at all', () => {
  const valid = (answer: LoadAnswer) => {
    if (answer.ok) return
    expect(answer.issues.length).toBeGreaterThan(0)
    for (const issue of answer.issues) {
      expect(Number.isInteger(issue.line) && issue.line >= 1).toBe(true)
      expect(Number.isInteger(issue.column) && issue.column >= 1).toBe(true)
      expect(issueLine(issue)).not.toMatch(/[\r\n\0]/)
    }
  }
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.string({ unit: fc.constantFrom(...'{}[]:-,?&*!|>\'"%@`# \t\nab01.<~'), maxLength: 300 }),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => new TextDecoder().decode(bytes)),
    fc.json({ maxDepth: 4 }),
  )

  test('never throws, and says where', () => {
    fc.assert(
      fc.property(text, text, (inventory, manifest) => valid(load(inventory, manifest))),
      { numRuns: 400 },
    )
  })

  /** Cut a piece out of a whole file and put another in its place. */
  const mutated = (whole: string) =>
    fc
      .array(
        fc.record({
          at: fc.nat(whole.length),
          cut: fc.nat(12),
          put: fc.oneof(
            fc.constantFrom('', ':', '\n', '  ', '\t', '-', '"', '{', '[', '&a ', '*a', '!!', '0'),
            fc.string({ maxLength: 6 }),
          ),
        }),
        { minLength: 1, maxLength: 4 },
      )
      .map((edits) =>
        edits.reduce(
          (now, { at, cut, put }) => now.slice(0, at) + put + now.slice(at + cut),
          whole,
        ),
      )

  test('mutations of whole files', () => {
    fc.assert(
      fc.property(
        mutated(INVENTORY),
        mutated(MANIFEST),
        mutated(GATEWAY),
        (inventory, manifest, gateway) => valid(load(inventory, manifest, gateway)),
      ),
      { numRuns: 600 },
    )
  })

  test('any bytes on disk', async () => {
    const paths = disk('bytes', WHOLE)
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        writeFileSync(paths.inventoryPath, bytes)
        valid(await loadFromDisk(paths, profiles))
      }),
      { numRuns: 100 },
    )
  })
})
