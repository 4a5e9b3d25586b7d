/**
 * One suite for every driver: what control relies on. A rig says how this driver is opened and how
 * to put something in its way; the ranks are shell scripts in place of engines.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { NodeSpec } from '../../src/core/inventory.ts'
import type { Container } from '../../src/core/observed.ts'
import type { RankSpec } from '../../src/core/runtime.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { errorLine, PenstockError } from '../../src/errors.ts'
import { waitFor } from '../support/docker-daemon.ts'
import { freePort, holdPort, type RankAsk, rankSpec } from '../support/rank.ts'

export type Rig = {
  readonly node: NodeSpec
  readonly image: string
  /** A fresh driver object each time: a Penstock that was restarted. */
  open(): Driver
  /** Something under this name that is not Penstock's; returns whether it is still untouched. */
  foreign(name: string): Promise<() => Promise<boolean>>
  /** Overwrites the labels of a stopped rank's record with nonsense; returns how to clean up. */
  damaged(spec: RankSpec): Promise<() => Promise<void>>
  close(): Promise<void>
}

const DEADLINE_MS = 20_000
/** Runs until told; `exec sleep` would hide that the shell is the engine. */
export const FOREVER = 'trap "exit 0" TERM; while :; do sleep 0.05; done'

export const never = new AbortController().signal

export const only = (containers: readonly Container[]): Container => {
  expect(containers).toHaveLength(1)
  const [first] = containers
  if (first === undefined) throw new Error('unreachable')
  return first
}

export const failure = async (work: Promise<unknown>): Promise<PenstockError> => {
  const error = await work.then(
    () => new Error('it did not fail'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof PenstockError)) throw error
  return error
}

export const collect = async (lines: AsyncIterable<string>, most = 1000): Promise<string[]> => {
  const all: string[] = []
  for await (const line of lines) {
    all.push(line)
    if (all.length >= most) break
  }
  return all
}

export const ended = async (driver: Driver, name: string): Promise<Container> => {
  let found: Container | undefined
  await waitFor(`${name} to end`, DEADLINE_MS, async () => {
    found = (await driver.list(never)).find((it) => it.name === name)
    return found?.state === 'exited'
  })
  if (found === undefined) throw new Error('unreachable')
  return found
}

export const conformance = (title: string, setup: () => Promise<Rig>): void => {
  describe(title, () => {
    let rig: Rig
    let driver: Driver
    const script = (text: string, over: Partial<RankAsk> = {}): RankSpec =>
      rankSpec({
        node: rig.node.name,
        name: 'penstock-test-0-1',
        image: rig.image,
        command: ['sh', '-c', text],
        ...over,
      })

    beforeAll(async () => {
      rig = await setup()
      driver = rig.open()
    })
    afterEach(async () => {
      for (const { name } of await driver.list(never)) await driver.stop(name, 0, never)
    })
    afterAll(async () => {
      await driver?.close()
      await rig?.close()
    })

    describe('start and stop', () => {
      test('a started rank runs under its labels', async () => {
        const spec = script(FOREVER, { labels: { gpus: [2, 3], port: 8102 } })
        const phases: string[] = []
        await driver.start(spec, never, ({ phase }) => phases.push(phase))
        const found = only(await driver.list(never))
        expect(found).toMatchObject({ name: spec.name, state: 'running', exitCode: null })
        expect(found).toMatchObject({ labels: spec.labels, error: null })
        expect(found.startedAtMs).toBeGreaterThan(Date.UTC(2020))
        expect(phases).toEqual(['start'])
      })

      test('a second start of the same spec changes nothing', async () => {
        await driver.start(script(FOREVER), never)
        const before = only(await driver.list(never))
        await driver.start(script(FOREVER), never)
        expect(only(await driver.list(never))).toEqual(before)
      })

      test('a different spec replaces it', async () => {
        await driver.start(script(`echo one; ${FOREVER}`), never)
        const before = only(await driver.list(never))
        const spec = script(`echo two; ${FOREVER}`, { labels: { specHash: 'hash-two' } })
        await driver.start(spec, never)
        const after = only(await driver.list(never))
        expect(after.labels.specHash).toBe('hash-two')
        expect(after.startedAtMs).toBeGreaterThan(before.startedAtMs)
        expect(await driver.logs(spec.name, 5, never)).toBe('two')
      })

      test('stop removes; stopping again, or the absent, is done', async () => {
        const spec = script(FOREVER)
        await driver.start(spec, never)
        await driver.stop(spec.name, 5000, never)
        expect(await driver.list(never)).toEqual([])
        await driver.stop(spec.name, 5000, never)
        await driver.stop('penstock-never-0-0', 5000, never)
      })

      test('a stop asks first: the engine says goodbye', async () => {
        const spec = script('trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done')
        await driver.start(spec, never)
        const said = collect(driver.follow(spec.name, 10, never))
        await driver.stop(spec.name, 10_000, never)
        expect(await said).toEqual(['up', 'bye'])
      })

      test('an engine that ignores SIGTERM is killed after the grace', async () => {
        const spec = script('trap "" TERM; sleep 1000 & while :; do sleep 0.05; done')
        await driver.start(spec, never)
        await driver.stop(spec.name, 300, never)
        expect(await driver.list(never)).toEqual([])
      })

      test('two stops at once both end', async () => {
        const spec = script(FOREVER)
        await driver.start(spec, never)
        await Promise.all([
          driver.stop(spec.name, 5000, never),
          rig.open().stop(spec.name, 5000, never),
        ])
        expect(await driver.list(never)).toEqual([])
      })
    })

    describe('what a restarted Penstock sees', () => {
      test('the same ranks, and it can stop them', async () => {
        const spec = script(FOREVER)
        await driver.start(spec, never)
        const later = rig.open()
        expect(await later.list(never)).toEqual(await driver.list(never))
        await later.start(spec, never)
        expect(await later.list(never)).toEqual(await driver.list(never))
        await later.stop(spec.name, 5000, never)
        await later.close()
        expect(await driver.list(never)).toEqual([])
      })

      test('the exit code, also much later, and a start makes it run again', async () => {
        const spec = script('sleep 0.6; echo done; exit 7')
        await driver.start(spec, never)
        expect(await ended(rig.open(), spec.name)).toMatchObject({ exitCode: 7, error: null })
        expect(await driver.logs(spec.name, 5, never)).toBe('done')
        await driver.start(script(FOREVER), never)
        expect(only(await driver.list(never)).state).toBe('running')
      })

      test('a rank that was killed from outside', async () => {
        const spec = script('sleep 0.6; kill -9 $$; sleep 9')
        // The shell is not process 1 of anything: it can be killed by itself.
        await driver.start({ ...spec, command: ['sh', '-c', `sh -c '${spec.command[2]}'`] }, never)
        const found = await ended(driver, spec.name)
        expect(found.exitCode).toBe(137)
        expect(found.error).toBe('ended by signal 9')
      })
    })

    describe('failures, in one line with node and rank', () => {
      test('an engine that ends at once, with its last words', async () => {
        const error = await failure(driver.start(script('echo no such flag >&2; exit 3'), never))
        expect(error.code).toBe('engine_exited')
        expect(errorLine(error)).toBe(
          `node ${rig.node.name}, test-0, rank 1: sh exited with 3 at once: no such flag`,
        )
        expect(only(await driver.list(never))).toMatchObject({ state: 'exited', exitCode: 3 })
      })

      test('an engine that finds its port taken', async () => {
        const text =
          'echo "[Errno 98] error while attempting to bind: address already in use"; exit 1'
        const error = await failure(driver.start(script(text), never))
        expect(error.code).toBe('port_taken')
      })

      test('the HTTP port of rank 0 is taken: said before anything starts', async () => {
        const held = await holdPort(rig.node.address)
        const spec = script(FOREVER, { labels: { rank: 0, port: held.port } })
        const error = await failure(driver.start(spec, never))
        await held.close()
        expect(error.code).toBe('port_taken')
        expect(errorLine(error)).toContain(
          `node ${rig.node.name}, test-0, rank 0: port ${held.port}`,
        )
        expect(await driver.list(never)).toEqual([])
        await driver.start(script(FOREVER, { labels: { rank: 0, port: held.port } }), never)
      })

      test('a program that is not there', async () => {
        const spec = { ...script(''), command: ['no-such-program', '--flag'] }
        const error = await failure(driver.start(spec, never))
        expect(['image_missing', 'container_refused']).toContain(error.code)
        expect(errorLine(error)).toContain('no-such-program')
        expect(errorLine(error)).toContain(`node ${rig.node.name}, test-0, rank 1: `)
      })

      test('nothing of that name', async () => {
        expect((await failure(driver.logs('penstock-x-0-0', 5, never))).code).toBe('not_found')
        const lines = collect(driver.exec('penstock-x-0-0', ['true'], never))
        expect((await failure(lines)).code).toBe('not_found')
      })
    })

    describe('several at once, and interrupted', () => {
      test('two Penstocks that start the same name make one', async () => {
        const port = await freePort(rig.node.address)
        const spec = script(FOREVER, { labels: { rank: 0, port } })
        const others = [rig.open(), rig.open(), rig.open()]
        await Promise.all(others.map((other) => other.start(spec, never)))
        expect(only(await driver.list(never)).state).toBe('running')
      })

      test('an aborted signal starts nothing', async () => {
        const reason = new Error('Ctrl-C')
        await expect(driver.start(script(FOREVER), AbortSignal.abort(reason))).rejects.toBe(reason)
        expect(await driver.list(never)).toEqual([])
      })

      test('an abort in the middle of a start leaves nothing', async () => {
        const reason = new Error('Ctrl-C')
        for (const delayMs of [0, 40, 150]) {
          const controller = new AbortController()
          const start = driver.start(script(FOREVER), controller.signal, () => {
            setTimeout(() => controller.abort(reason), delayMs)
          })
          await expect(start).rejects.toBe(reason)
          expect(await driver.list(never)).toEqual([])
        }
      })

      test('a stop during a start: afterwards it runs whole or is gone', async () => {
        const spec = script(FOREVER)
        const start = driver.start(spec, never).catch((error: unknown) => errorLine(error))
        await rig.open().stop(spec.name, 1000, never)
        await start
        const found = await driver.list(never)
        expect(found.map(({ state }) => state).filter((state) => state !== 'running')).toEqual([])
        await driver.stop(spec.name, 1000, never)
        expect(await driver.list(never)).toEqual([])
      })
    })

    describe('output', () => {
      test('the last lines of both streams, oldest first', async () => {
        const spec = script(`for i in 1 2 3 4 5; do echo out $i; done; echo err >&2; ${FOREVER}`)
        await driver.start(spec, never)
        const all = (await driver.logs(spec.name, 100, never)).split('\n')
        expect([...all].sort()).toEqual(['err', 'out 1', 'out 2', 'out 3', 'out 4', 'out 5'])
        expect((await driver.logs(spec.name, 2, never)).split('\n')).toHaveLength(2)
      })

      test('at most 1 MiB, whatever is asked', async () => {
        const line = 'x'.repeat(1000)
        const spec = script(
          `i=0; while [ $i -lt 1500 ]; do echo ${line}; i=$((i+1)); done; ${FOREVER}`,
        )
        await driver.start(spec, never)
        const chars = async (): Promise<number> =>
          (await driver.logs(spec.name, 10_000, never)).length
        await waitFor('the log', DEADLINE_MS, async () => (await chars()) > 1_000_000)
        expect(await chars()).toBeLessThanOrEqual(1024 * 1024)
      })

      test('followed to the end of the rank', async () => {
        const spec = script('for i in 1 2 3 4 5 6; do echo line $i; sleep 0.15; done')
        await driver.start(spec, never)
        const lines = await collect(driver.follow(spec.name, 100, never))
        expect(lines).toEqual([1, 2, 3, 4, 5, 6].map((i) => `line ${i}`))
      })

      test('followed until aborted', async () => {
        // Five lines in one piece: whoever leaves at the third gets none of the others.
        const piece = '$i\\n$((i+1))\\n$((i+2))\\n$((i+3))\\n$((i+4))\\n'
        const spec = script(`i=1; while :; do printf "${piece}"; i=$((i+5)); sleep 0.05; done`)
        await driver.start(spec, never)
        const controller = new AbortController()
        const seen: string[] = []
        for await (const line of driver.follow(spec.name, 0, controller.signal)) {
          seen.push(line)
          if (seen.length === 3) controller.abort()
        }
        expect(seen).toHaveLength(3)
        expect(Number(seen[2])).toBe(Number(seen[0]) + 2)
      })
    })

    describe('exec', () => {
      test("runs in the rank's environment", async () => {
        const spec = script(FOREVER, { environment: { COLOUR: 'blue green' } })
        await driver.start(spec, never)
        const command = ['sh', '-c', 'echo "$COLOUR"; echo second; echo lost >&2']
        expect(await collect(driver.exec(spec.name, command, never))).toEqual([
          'blue green',
          'second',
        ])
      })

      test('a program that fails or is missing', async () => {
        const spec = script(FOREVER)
        await driver.start(spec, never)
        const failed = collect(driver.exec(spec.name, ['sh', '-c', 'echo bad >&2; exit 4'], never))
        expect(errorLine(await failure(failed))).toContain('sh exited with 4: bad')
        const missing = await failure(collect(driver.exec(spec.name, ['no-such'], never)))
        expect(missing.code).toBe('exec_failed')
        expect(missing.message).toContain('no-such')
      })

      test('an abort, or a reader who leaves, kills it', async () => {
        const spec = script(FOREVER)
        await driver.start(spec, never)
        const command = ['sh', '-c', 'echo $$; sleep 1000 & while :; do sleep 0.05; done']
        const controller = new AbortController()
        const [first] = await collect(driver.exec(spec.name, command, never), 1)
        let second = ''
        for await (const line of driver.exec(spec.name, command, controller.signal)) {
          second = line
          controller.abort()
        }
        for (const pid of [first, second]) {
          const check = ['sh', '-c', `kill -0 ${pid} 2>/dev/null && echo alive || echo gone`]
          await waitFor(`${pid} to be gone`, DEADLINE_MS, async () => {
            return (await collect(driver.exec(spec.name, check, never)))[0] === 'gone'
          })
        }
        expect(only(await driver.list(never)).state).toBe('running')
      })

      test('not in a rank that has ended', async () => {
        const spec = script('sleep 0.5')
        await driver.start(spec, never)
        await ended(driver, spec.name)
        const error = await failure(collect(driver.exec(spec.name, ['true'], never)))
        expect(error.code).toBe('not_running')
      })
    })

    describe('what is not ours', () => {
      test('is not listed, not stopped, not replaced', async () => {
        const spec = script(FOREVER, { name: 'penstock-foreign-0-0' })
        const untouched = await rig.foreign(spec.name)
        expect(await driver.list(never)).toEqual([])
        expect((await failure(driver.start(spec, never))).code).toBe('conflict')
        expect((await failure(driver.stop(spec.name, 0, never))).code).toBe('conflict')
        expect(await untouched()).toBe(true)
      })

      test('damaged labels are nobody`s', async () => {
        const spec = script(FOREVER, { name: 'penstock-damaged-0-0' })
        const clean = await rig.damaged(spec)
        expect(await driver.list(never)).toEqual([])
        await clean()
      })
    })

    describe('facts', () => {
      test('who the node is', async () => {
        const facts = await driver.facts(never)
        expect(facts.engine).toMatch(/^(process|Docker Engine \d+\.)/)
        expect(facts.cpus).toBeGreaterThan(0)
        expect(facts.memoryBytes).toBeGreaterThan(100 * 1024 * 1024)
        expect(facts.hostname).not.toBe('')
      })

      test('whether the image is there', async () => {
        expect(await driver.hasImage(script(FOREVER), never)).toBe(true)
        const absent = { ...script(''), image: 'penstock/none:1', command: ['no-such-program'] }
        expect(await driver.hasImage(absent, never)).toBe(false)
      })
    })
  })
}
