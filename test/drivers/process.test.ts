import { spawn } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { Driver } from '../../src/drivers/driver.ts'
import { bound } from '../../src/drivers/logfile.ts'
import { isAlive, readProcess } from '../../src/drivers/proc.ts'
import { processDriver } from '../../src/drivers/process.ts'
import { errorLine } from '../../src/errors.ts'
import { waitFor } from '../support/docker-daemon.ts'
import { hasProgram, requirePart } from '../support/parts.ts'
import { freePort, nodeSpec, type RankAsk, rankSpec, rehearsal } from '../support/rank.ts'
import {
  collect,
  conformance,
  ended,
  FOREVER,
  failure,
  never,
  only,
  type Rig,
} from './conformance.ts'

const setup = async (): Promise<Rig> => {
  const home = mkdtempSync(join(tmpdir(), 'penstock-process-'))
  const node = nodeSpec('here', { address: '127.0.0.21', driver: 'process', device: 'cpu' })
  const open = () => processDriver({ node, home, simulatorBin: join(home, 'bin') })
  const file = (name: string): string => join(home, 'run', `${name}.json`)
  return {
    node,
    open,
    image: 'unused',
    foreign: async (name) => {
      writeFileSync(file(name), '{"not": "ours"}')
      return async () => {
        const same = readFileSync(file(name), 'utf8') === '{"not": "ours"}'
        rmSync(file(name))
        return same
      }
    },
    damaged: async (spec) => {
      const driver = open()
      await driver.start(spec, never)
      const text = readFileSync(file(spec.name), 'utf8')
      writeFileSync(file(spec.name), text.replaceAll('dev.penstock.rank', 'dev.penstock.rnk'))
      return async () => {
        writeFileSync(file(spec.name), text)
        await driver.stop(spec.name, 0, never)
      }
    },
    close: async () => rmSync(home, { recursive: true }),
  }
}

const DEADLINE_MS = 20_000

const RunSchema = z.object({ leader: z.object({ pid: z.number(), startTicks: z.number() }) })

const linux = requirePart('Linux (/proc)', process.platform === 'linux' && hasProgram('sh'))

describe.skipIf(!linux)('process driver', () => conformance('conformance', setup))

describe.skipIf(!linux)('ranks on this machine', () => {
  let home: string
  let driver: Driver
  const node = nodeSpec('here', { address: '127.0.0.22', driver: 'process', device: 'cpu' })
  const open = (environment: Record<string, string | undefined> = process.env): Driver =>
    processDriver({ node, home, simulatorBin: join(home, 'bin'), environment })
  const script = (text: string, over: Partial<RankAsk> = {}) =>
    rankSpec({
      ...{ node: 'here', name: 'penstock-own-0-1', image: 'unused', command: ['sh', '-c', text] },
      ...over,
    })
  const runFile = join('run', 'penstock-own-0-1.json')
  const leader = () => RunSchema.parse(JSON.parse(readFileSync(join(home, runFile), 'utf8'))).leader
  const alive = async (pid: number): Promise<boolean> => isAlive(await readProcess(pid))

  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'penstock-own-'))
    driver = open()
  })
  afterEach(async () => {
    for (const { name } of await driver.list(never)) await driver.stop(name, 0, never)
    rmSync(home, { recursive: true })
  })

  /** A Penstock of its own that starts a rank and says so; killed by us. */
  const startedElsewhere = async (text: string): Promise<void> => {
    const file = join(home, 'starter.ts')
    const source = (path: string): string => JSON.stringify(resolve('src/drivers', path))
    writeFileSync(
      file,
      [
        `import { processDriver } from ${source('process.ts')}`,
        `const ask = ${JSON.stringify({ node, home, simulatorBin: join(home, 'bin') })}`,
        `const spec = ${JSON.stringify(script(text))}`,
        'await processDriver(ask).start(spec, new AbortController().signal)',
        'console.log("started")',
        'setInterval(() => undefined, 1000)',
      ].join('\n'),
    )
    const starter = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] })
    await new Promise((done) => starter.stdout.once('data', done))
    starter.kill('SIGKILL')
    await new Promise((done) => starter.once('close', done))
  }

  test('survive the kill -9 of the Penstock that started them; the exit code is learned', async () => {
    await startedElsewhere('echo up; while [ ! -e go ]; do sleep 0.05; done; echo end; exit 6')
    const found = only(await driver.list(never))
    expect(found).toMatchObject({ state: 'running', exitCode: null, error: null })
    await driver.start(script('something else with the same hash'), never)
    expect(only(await driver.list(never))).toEqual(found)
    writeFileSync(join(home, 'go'), '')
    expect(await ended(driver, found.name)).toMatchObject({ state: 'exited', exitCode: 6 })
    expect(await driver.logs(found.name, 5, never)).toBe('up\nend')
  })

  test('are stopped by another Penstock, with a goodbye', async () => {
    await startedElsewhere('trap "echo bye; exit 0" TERM; while :; do sleep 0.05; done')
    await driver.stop('penstock-own-0-1', 10_000, never)
    expect(await driver.list(never)).toEqual([])
    expect(readFileSync(join(home, 'logs', 'penstock-own-0-1.log'), 'utf8')).toBe('bye\n')
  })

  test('are found when their starter died before it wrote down who they are', async () => {
    await driver.start(script(FOREVER), never)
    const { pid } = leader()
    const path = join(home, runFile)
    const text = readFileSync(path, 'utf8')
    writeFileSync(path, JSON.stringify({ ...JSON.parse(text), leader: null }))
    expect(only(await driver.list(never)).state).toBe('running')
    await driver.stop('penstock-own-0-1', 5000, never)
    expect(await alive(pid)).toBe(false)
  })

  test('a reused process id is not taken for ours', async () => {
    await driver.start(script(FOREVER), never)
    const path = join(home, runFile)
    const text = readFileSync(path, 'utf8')
    // This test's own process under the number on file: it must not be seen, and not be killed.
    const reused = text.replace(/"pid": \d+/, `"pid": ${process.pid}`)
    const { pid } = leader()
    writeFileSync(path, reused)
    expect(only(await driver.list(never))).toMatchObject({ state: 'exited', exitCode: null })
    await driver.stop('penstock-own-0-1', 5000, never)
    // The mark in its environment still gave the real one away.
    expect(await alive(pid)).toBe(false)
  })

  test('of before a reboot are over', async () => {
    await driver.start(script('sleep 0.5'), never)
    await ended(driver, 'penstock-own-0-1')
    const path = join(home, runFile)
    const text = readFileSync(path, 'utf8')
    const run = JSON.parse(text).run
    rmSync(join(home, 'run', `penstock-own-0-1.${run}.exit`))
    writeFileSync(path, text.replace(/"bootId": "[^"]+"/, '"bootId": "another"'))
    expect(only(await driver.list(never)).error).toBe('the machine was restarted')
  })

  test('whose wrapper was killed are over, and nothing of them stays', async () => {
    await driver.start(script('echo $$; exec sleep 1000'), never)
    const engine = Number(await driver.logs('penstock-own-0-1', 1, never))
    process.kill(leader().pid, 'SIGKILL')
    const found = await ended(driver, 'penstock-own-0-1')
    expect(found).toMatchObject({ exitCode: null })
    expect(found.error).toContain('were killed')
    expect(await alive(engine)).toBe(true)
    await driver.start(script(FOREVER), never)
    expect(await alive(engine)).toBe(false)
  })

  test('SIGTERM goes to the engine alone; what it leaves behind ends with it', async () => {
    const child = 'trap "echo child was told" TERM; while :; do sleep 0.05; done'
    const text = `(${child}) & echo $!; setsid sleep 1000 & ${FOREVER}`
    const strays = () =>
      readdirSync('/proc').filter((name) => {
        try {
          return readFileSync(`/proc/${name}/environ`, 'utf8').includes(`PENSTOCK_TEST=${home}`)
        } catch {
          return false
        }
      })
    await driver.start(script(text, { environment: { PENSTOCK_TEST: home } }), never)
    expect(strays().length).toBeGreaterThan(3)
    const pid = Number((await driver.logs('penstock-own-0-1', 1, never)).split('\n')[0])
    expect(await alive(pid)).toBe(true)
    await driver.stop('penstock-own-0-1', 5000, never)
    expect(await alive(pid)).toBe(false)
    const log = readFileSync(join(home, 'logs', 'penstock-own-0-1.log'), 'utf8')
    expect(log).not.toContain('child was told')
    expect(strays()).toEqual([])
  })

  test('an unfinished last line is followed too', async () => {
    await driver.start(script('echo one; sleep 0.5; printf rest'), never)
    expect(await collect(driver.follow('penstock-own-0-1', 5, never))).toEqual(['one', 'rest'])
  })

  test('the log before is kept once, and a log that grows is cut', async () => {
    await driver.start(script(`echo first; ${FOREVER}`), never)
    await driver.stop('penstock-own-0-1', 5000, never)
    await driver.start(script('i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done'), never)
    const log = join(home, 'logs', 'penstock-own-0-1.log')
    expect(readFileSync(`${log}.1`, 'utf8')).toBe('first\n')
    await waitFor('100 bytes', DEADLINE_MS, async () => statSync(log).size > 100)
    await bound(log, 100)
    await waitFor('new lines', DEADLINE_MS, async () => statSync(log).size > 10)
    // Appended behind the cut, with no hole of zeros before.
    expect(readFileSync(log, 'utf8')).toMatch(/^\d+\n/)
  })

  test('have no part in our environment beyond a few variables', async () => {
    const environment = { ...process.env, SECRET: 'x', HF_TOKEN: 'hf_1', LANG: 'C' }
    const spec = script(FOREVER, { gpus: [1, 3], environment: { OWN: 'yes' } })
    await open(environment).start(spec, never)
    const lines = await collect(driver.exec(spec.name, ['env'], never))
    expect(lines).toEqual(expect.arrayContaining(['HF_TOKEN=hf_1', 'LANG=C', 'OWN=yes']))
    expect(lines).toContain('CUDA_VISIBLE_DEVICES=1,3')
    expect(lines.filter((line) => line.startsWith('SECRET='))).toEqual([])
    expect(readFileSync(join(home, runFile), 'utf8')).not.toContain('hf_1')
  })

  test('in rehearsal the simulator stands in front of the real program', async () => {
    mkdirSync(join(home, 'bin'))
    const stand = '#!/bin/sh\necho "simulated $*"; echo "$PENSTOCK_REHEARSAL"; exec sleep 1000\n'
    writeFileSync(join(home, 'bin', 'vllm'), stand)
    chmodSync(join(home, 'bin', 'vllm'), 0o755)
    const settings = rehearsal('here', [0])
    const spec = { ...script(''), command: ['vllm', 'serve', 'm'], gpus: [0], rehearsal: settings }
    await driver.start(spec, never)
    const [first, second] = (await driver.logs(spec.name, 2, never)).split('\n')
    expect(first).toBe('simulated serve m')
    expect(JSON.parse(second ?? '')).toEqual(settings)
    const environment = await collect(driver.exec(spec.name, ['env'], never))
    expect(environment.filter((line) => line.startsWith('CUDA_VISIBLE_DEVICES'))).toEqual([])
  })

  test('a taken port names its holder', async () => {
    const port = await freePort('127.0.0.22')
    const program = `require('net').createServer().listen(${port},'127.0.0.22',()=>console.log(1))`
    const holder = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'ignore'] })
    await new Promise((done) => holder.stdout.once('data', done))
    const error = await failure(driver.start(script('', { labels: { rank: 0, port } }), never))
    holder.kill('SIGKILL')
    expect(errorLine(error)).toContain(
      `node here, test-0, rank 0: port ${port} at 127.0.0.22 is taken by process ${holder.pid} (`,
    )
  })

  test('a rank that moved to another node is not taken over here', async () => {
    const other = processDriver({
      ...{ node: { ...node, name: 'there' }, home, simulatorBin: join(home, 'bin') },
    })
    await driver.start(script(FOREVER), never)
    expect(await other.list(never)).toEqual([])
    const error = await failure(other.start(script(FOREVER, { node: 'there' }), never))
    expect(error.message).toContain('still runs on node here')
    await other.stop('penstock-own-0-1', 0, never)
    expect(only(await driver.list(never)).state).toBe('running')
  })
})
