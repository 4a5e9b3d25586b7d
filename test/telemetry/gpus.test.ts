import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type Clock, systemClock } from '../../src/clock.ts'
import { GPU_QUERY } from '../../src/core/gpu.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { execLines } from '../../src/drivers/process-exec.ts'
import { PenstockError } from '../../src/errors.ts'
import { createGpuWatch, type GpuRank, type NodeGpuReading } from '../../src/telemetry/gpus.ts'
import { manualClock } from '../support/clock.ts'
import { fakeNode } from '../support/fake-driver.ts'
import { temporaryDirectory } from '../support/home.ts'

const PATIENCE = { timeout: 20_000, interval: 5 }

const line = (index: number | string, used = 100, uuid = `GPU-${index}`) =>
  `${index}, ${uuid}, 50, ${used}, 97871, 300.5, 60, NVIDIA H20`

const driverWith = (exec: Driver['exec'], visibleGpus: Driver['visibleGpus']): Driver => ({
  ...fakeNode('n1', async () => undefined).driver(),
  visibleGpus,
  exec,
})

/** A real process in nvidia-smi's place, at the end of a real pipe. */
const programDriver = (script: string, visibleGpus: Driver['visibleGpus'] = 'rank') => {
  const directory = temporaryDirectory()
  const program = join(directory, 'nvidia-smi')
  writeFileSync(program, `#!/bin/sh\necho "$$ $*" >> ${directory}/starts\n${script}\n`)
  chmodSync(program, 0o755)
  const exec: Driver['exec'] = (_name, [, ...rest], signal) =>
    execLines(
      {
        command: [program, ...rest],
        environment: { PATH: '/usr/bin:/bin' },
        directory,
        node: 'n1',
      },
      signal,
    )
  const starts = () => readFileSync(join(directory, 'starts'), 'utf8').trim().split('\n')
  return { driver: driverWith(exec, visibleGpus), starts }
}

const watch = (
  driver: Driver | null,
  ranks: () => readonly GpuRank[],
  clock: Clock = systemClock,
) => {
  const readings: [string, NodeGpuReading][] = []
  const errors: string[] = []
  const gpus = createGpuWatch({
    ranks,
    driverOf: () => driver,
    clock,
    onReading: (node, reading) => readings.push([node, reading]),
    onError: (node, rank, message) => errors.push(`${node} ${rank}: ${message}`),
  })
  onTestFinished(() => gpus.stop())
  const latest = () =>
    new Map(readings.map(([node, { index, uuid }]) => [`${node}/${index}`, uuid]))
  return { readings, errors, gpus, latest }
}

const alive = (pid: string): boolean => {
  try {
    return process.kill(Number(pid), 0)
  } catch {
    return false
  }
}

test('inside a container GPUs are renumbered: the first line is the lowest of the rank', async () => {
  const script = `while :; do echo '${line(0)}'; echo '${line(1)}'; echo; sleep 0.05; done`
  const { driver, starts } = programDriver(script)
  const { readings, gpus, latest, errors } = watch(driver, () => [
    { name: 'r', node: 'n1', gpus: [5, 2] },
  ])
  await expect.poll(() => readings.length, PATIENCE).toBeGreaterThan(5)
  expect([...latest()]).toEqual([
    ['n1/2', 'GPU-0'],
    ['n1/5', 'GPU-1'],
  ])
  expect(readings[0]?.[1]).toMatchObject({
    name: 'NVIDIA H20',
    utilizationRatio: 0.5,
    memoryUsedBytes: 100 * 1024 * 1024,
    powerWatts: 300.5,
  })
  expect(starts().length).toBe(1)
  const [pid = '', ...args] = starts()[0]?.split(' ') ?? []
  expect(args).toEqual([`--query-gpu=${GPU_QUERY}`, '--format=csv,noheader,nounits', '-l', '1'])
  expect(alive(pid)).toBe(true)
  await gpus.stop()
  expect(alive(pid)).toBe(false)
  expect(errors).toEqual([])
})

test('where it sees the whole machine, one process reads the GPUs of all ranks', async () => {
  const lines = 'for i in 0 3 7; do echo "$i, GPU-$i, 1, 2, 3, 4, 5, H20"; done'
  const script = `while :; do ${lines}; sleep 0.05; done`
  const { driver, starts } = programDriver(script, 'host')
  const { readings, latest } = watch(driver, () => [
    { name: 'b', node: 'n1', gpus: [7] },
    { name: 'a', node: 'n1', gpus: [3] },
    { name: 'cpu', node: 'n1', gpus: [] },
  ])
  await expect.poll(() => readings.length, PATIENCE).toBeGreaterThan(5)
  expect([...latest()].sort()).toEqual([
    ['n1/3', 'GPU-3'],
    ['n1/7', 'GPU-7'],
  ])
  expect(starts().length).toBe(1)
  expect(starts()[0]).toContain(' -i 3,7 -l 1')
})

test('a GPU that is lost is known by its place, and reads as unknown', async () => {
  const lost = Array.from({ length: 8 }, () => '[GPU is lost]').join(', ')
  const exec: Driver['exec'] = async function* (_name, _command, signal) {
    yield* [line(0), lost, line(2), lost, line(1), line(2), line(3)]
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
  }
  const { readings } = watch(driverWith(exec, 'rank'), () => [
    { name: 'r', node: 'n1', gpus: [4, 5, 6] },
  ])
  await expect.poll(() => readings.length, PATIENCE).toBe(6)
  expect(readings.map(([, reading]) => [reading.index, reading.memoryUsedBytes !== null])).toEqual([
    [4, true],
    [5, false],
    [6, true],
    [4, false],
    [5, true],
    [6, true],
  ])
})

test('it is started again when it ends, later each time, sooner when it had worked', async () => {
  const clock = manualClock()
  const startedAt: number[] = []
  let answers = false
  const exec: Driver['exec'] = async function* () {
    startedAt.push(clock.monotonic())
    if (answers) yield line(0)
    else yield "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    throw new PenstockError('engine_exited', 'nvidia-smi exited with 9', { node: 'n1' })
  }
  const { errors, gpus, readings } = watch(
    driverWith(exec, 'rank'),
    () => [{ name: 'r', node: 'n1', gpus: [0] }],
    clock,
  )
  for (let second = 0; second < 200; second += 1) await clock.advance(1000)
  expect(startedAt).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 124_000, 184_000])
  expect(errors).toEqual([
    "n1 r: nvidia-smi: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
  ])
  answers = true
  for (let second = 0; second < 60; second += 1) await clock.advance(1000)
  expect(readings.length).toBeGreaterThan(5)
  expect(errors[1]).toBe('n1 r: node n1: nvidia-smi exited with 9')
  await gpus.stop()
  expect(clock.pending()).toBe(0)
})

test('ranks that end take their process along, new ones get theirs', async () => {
  const script = `while :; do echo '${line(0)}'; sleep 0.05; done`
  const { driver, starts } = programDriver(script)
  let ranks: readonly GpuRank[] = [{ name: 'a', node: 'n1', gpus: [0] }]
  const { readings } = watch(driver, () => ranks)
  await expect.poll(() => readings.length, PATIENCE).toBeGreaterThan(1)
  const [first = ''] = starts()[0]?.split(' ') ?? []
  ranks = [{ name: 'b', node: 'n2', gpus: [1] }]
  await expect.poll(() => readings.some(([node]) => node === 'n2'), PATIENCE).toBe(true)
  await expect.poll(() => alive(first), PATIENCE).toBe(false)
  expect(starts().length).toBe(2)
})

test('a node whose driver is away is left alone', async () => {
  const clock = manualClock()
  const { readings, errors } = watch(null, () => [{ name: 'r', node: 'n1', gpus: [0] }], clock)
  await clock.advance(5000)
  expect([readings, errors]).toEqual([[], []])
})
