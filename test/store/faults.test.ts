import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { errorLine, PenstockError } from '../../src/errors.ts'
import { openStore } from '../../src/store/store.ts'
import { temporaryDirectory } from '../support/home.ts'
import { hasProgram, requirePart } from '../support/parts.ts'
import { finished } from './requests.ts'

const CHILD = fileURLToPath(new URL('./child.ts', import.meta.url))

const child = (mode: string, home: string): { process: ChildProcess; lines: string[] } => {
  const started = spawn(process.execPath, [CHILD, mode, home], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => {
    started.kill('SIGKILL')
  })
  const lines: string[] = []
  createInterface({ input: started.stdout }).on('line', (line) => lines.push(line))
  return { process: started, lines }
}

const ended = (process: ChildProcess): Promise<void> =>
  new Promise((resolve) => process.once('close', () => resolve()))

const failureOf = async (home: string): Promise<PenstockError> => {
  try {
    const store = await openStore({ home })
    await store.close()
  } catch (error) {
    if (error instanceof PenstockError) return error
    throw error
  }
  throw new Error('the store opened')
}

test('kill -9 in the middle of writing loses nothing that was confirmed', async () => {
  const home = temporaryDirectory()
  for (let life = 0; life < 3; life += 1) {
    const writer = child('write', home)
    await expect.poll(() => writer.lines.length, { timeout: 60_000 }).toBeGreaterThan(20)
    const end = ended(writer.process)
    writer.process.kill('SIGKILL')
    await end
    const last = JSON.parse(writer.lines.at(-1) ?? '')
    const store = await openStore({ home })
    const requests = (await store.recentRequests(1e6)).length
    const desired = await store.loadDesired()
    const keys = store.keys().length
    expect(store.roleOf(last.key)).toBe('consumer')
    expect(desired?.generation).toBeGreaterThanOrEqual(last.generation)
    expect(desired?.files.inventory?.text).toMatch(/^round \d+$/)
    expect(keys).toBeGreaterThanOrEqual(desired?.generation ?? 0)
    expect(requests % 50).toBe(0)
    await store.close()
  }
})

test('a second Penstock on the same home is refused in one line that names the first', async () => {
  const home = temporaryDirectory()
  const holder = child('hold', home)
  await expect.poll(() => holder.lines, { timeout: 60_000 }).toEqual(['held'])
  const failure = await failureOf(home)
  expect(failure.code).toBe('already_running')
  expect(errorLine(failure)).toMatch(
    new RegExp(
      `^another Penstock \\(pid ${holder.process.pid}\\) uses \\S+ since 20\\S+Z: stop it`,
    ),
  )
  const end = ended(holder.process)
  holder.process.kill('SIGKILL')
  await end
  expect(existsSync(join(home, 'penstock.lock'))).toBe(true)
  const store = await openStore({ home })
  expect(JSON.parse(readFileSync(join(home, 'penstock.lock'), 'utf8')).pid).toBe(process.pid)
  expect((await failureOf(home)).message).toContain(`pid ${process.pid}`)
  await store.close()
  expect(existsSync(join(home, 'penstock.lock'))).toBe(false)
})

test('of many that start at once over the note of a dead one, exactly one wins', async () => {
  const home = temporaryDirectory()
  writeFileSync(join(home, 'penstock.lock'), JSON.stringify({ pid: 1, startedAtMs: 0 }))
  const starters = Array.from({ length: 5 }, () => child('hold', home))
  const said = () => starters.map(({ lines }) => lines[0]?.slice(0, 24) ?? 'silent').sort()
  await expect
    .poll(said, { timeout: 60_000 })
    .toEqual(
      ['held', ...Array.from({ length: 4 }, () => 'refused: another Penstock')].map((text) =>
        text.slice(0, 24),
      ),
    )
})

test.each([
  [
    'no database at all',
    () => Buffer.from('this is not a database, it only looks like one'.repeat(99)),
  ],
  [
    'zeros over the header',
    (whole: Buffer) => Buffer.concat([Buffer.alloc(100), whole.subarray(100)]),
  ],
  [
    'a page of noise',
    (whole: Buffer) =>
      Buffer.concat([whole.subarray(0, 4096), Buffer.alloc(8192, 0xa5), whole.subarray(12_288)]),
  ],
  ['cut short', (whole: Buffer) => whole.subarray(0, 9000)],
])('a damaged file is refused by name: %s', async (_, damage) => {
  const home = temporaryDirectory()
  const path = join(home, 'penstock.db')
  const store = await openStore({ home })
  store.createKey({ role: 'admin', consumer: 'a', models: null })
  await store.close()
  const damaged = damage(readFileSync(path))
  writeFileSync(path, damaged)
  for (let time = 0; time < 2; time += 1) {
    const failure = await failureOf(home)
    expect(failure.code).toBe('store_failed')
    expect(failure.message).toContain(path)
    expect(failure.message).toMatch(/(is damaged|is no database): restore it from a backup, or/)
    expect(failure.message).not.toContain('\n')
  }
  expect(readFileSync(path).equals(damaged)).toBe(true)
})

test('a database of a newer Penstock is refused and left as it is', async () => {
  const home = temporaryDirectory()
  await (await openStore({ home })).close()
  const file = new DatabaseSync(join(home, 'penstock.db'))
  file.exec("INSERT INTO migrations VALUES (7, 'from the future', 0)")
  file.close()
  const failure = await failureOf(home)
  expect(failure.message).toMatch(/written by a newer Penstock \(schema 7, this one knows 5\)/)
})

test('a home that is a file, or under one, is said so', async () => {
  const home = temporaryDirectory()
  const file = join(home, 'file')
  writeFileSync(file, '')
  expect((await failureOf(file)).message).toMatch(/file is no directory: move that file away/)
  expect((await failureOf(join(file, 'x'))).message).toContain('part of its path is a file')
  mkdirSync(join(home, 'penstock.db'))
  expect((await failureOf(home)).message).toMatch(/penstock\.db is a directory/)
})

test('a home that may not be written is said so', () => {
  const home = temporaryDirectory()
  chmodSync(home, 0o555)
  const script = [
    `import { openStore } from ${JSON.stringify(join(CHILD, '../../../src/store/store.ts'))}`,
    'if (process.getuid() === 0) process.setuid(65534)',
    `openStore({ home: ${JSON.stringify(home)} }).catch((e) => console.log(e.code, e.message))`,
  ].join('\n')
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  })
  expect(ran.stdout).toMatch(/^store_failed \S+ may not be used: check its owner and mode/)
})

test.skipIf(!requirePart('mount of a small tmpfs', canMount()))(
  'a full disk is a readable error and, once there is room, nothing is lost',
  async () => {
    const home = temporaryDirectory()
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=700k', 'none', home])
    onTestFinished(() => {
      spawnSync('umount', [home])
    })
    const store = await openStore({ home })
    const { key } = store.createKey({ role: 'consumer', consumer: 'a', models: null })
    let batches = 0
    const fill = (): void => {
      for (; batches < 1000; batches += 1) {
        store.recordRequests(Array.from({ length: 50 }, (_, at) => finished(`${batches}-${at}`)))
      }
    }
    expect(fill).toThrow(/penstock\.db could not be written, the disk is full: free some space/)
    expect((await store.recentRequests(1e6)).length).toBe(batches * 50)
    spawnSync('mount', ['-o', 'remount,size=8m', home])
    store.recordRequests([finished('after')])
    await store.close()
    const again = await openStore({ home })
    expect(again.roleOf(key)).toBe('consumer')
    expect((await again.recentRequests(1e6)).length).toBe(batches * 50 + 1)
    await again.close()
  },
)

function canMount(): boolean {
  if (process.getuid?.() !== 0 || !hasProgram('mount')) return false
  const probe = '/tmp/penstock-test-mount'
  mkdirSync(probe, { recursive: true })
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', probe]).status === 0
  if (mounted) spawnSync('umount', [probe])
  return mounted
}
