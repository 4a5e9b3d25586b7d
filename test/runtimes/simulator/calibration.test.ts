import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { fitCoefficients } from '../../../runtimes/simulator/calibration/fit.ts'
import { GPUS } from '../../../runtimes/simulator/calibration/gpus.ts'
import {
  GOAL,
  heldOutErrors,
  meetsGoal,
  prepare,
  simulate,
  summary,
  table,
} from '../../../runtimes/simulator/calibration/report.ts'
import type { Row, Use } from '../../../runtimes/simulator/calibration/row.ts'
import { ROWS } from '../../../runtimes/simulator/calibration/rows.ts'
import { engineOf, play } from '../../../runtimes/simulator/calibration/trace.ts'
import { FITTED } from '../../../runtimes/simulator/physics/coefficients.ts'
import { costOf } from '../../../runtimes/simulator/service.ts'
import { rehearsal } from './support.ts'

const having = (role: Use['role']) => ROWS.filter(({ use }) => use.role === role)
const ready = (rows: readonly Row[]) =>
  rows.map((row) => {
    const prepared = prepare(row)
    if (prepared === null) throw new Error(`${row.name}: no load`)
    return prepared
  })

const rowNamed = (name: string): Row => {
  const row = ROWS.find((one) => one.name === name)
  if (row === undefined) throw new Error(`no row ${name}`)
  return row
}

describe('the simulator against published measurements', () => {
  const heldOut = ready(having('held-out')).map((one) => simulate(one, FITTED))

  test('rows that nothing was fitted to: median within 15 %, worst within 35 %', () => {
    const errors = heldOutErrors(heldOut)
    process.stdout.write(table(heldOut))
    expect(new Set(heldOut.map(({ row }) => row.gpu.name)).size).toBeGreaterThanOrEqual(4)
    expect(heldOut.length).toBeGreaterThanOrEqual(5)
    expect(errors.length).toBeGreaterThanOrEqual(heldOut.length)
    expect(summary(errors).median).toBeLessThanOrEqual(GOAL.medianRatio)
    expect(summary(errors).worst).toBeLessThanOrEqual(GOAL.worstRatio)
  })

  test('the verdict can be bad', () => {
    const slow = { ...FITTED, sequenceMs: 10 * FITTED.sequenceMs }
    const errors = heldOutErrors(ready(having('held-out')).map((one) => simulate(one, slow)))
    expect(meetsGoal(errors)).toBe(false)
    expect(meetsGoal([])).toBe(false)
    expect(meetsGoal([0.01, 0.02, 0.36])).toBe(false)
    expect(meetsGoal([0.01, 0.2, 0.3])).toBe(false)
    expect(summary([0.1, 0.2, 0.3, 0.4]).median).toBeCloseTo(0.25)
  })

  test('coefficients are those that the fit finds, from the rows marked for it', () => {
    const found = fitCoefficients(ready(having('fit')))
    for (const [name, value] of Object.entries(FITTED)) {
      const again = Object.entries(found).find(([key]) => key === name)?.[1] ?? Number.NaN
      // Rounded to three digits; one more for exp and log of other processors.
      expect(Math.abs(again / value - 1), `${name}: ${again} found, ${value} kept`).toBeLessThan(
        0.01,
      )
    }
  })

  test('rows left out say why, and those used can be repeated', () => {
    expect(new Set(ROWS.map(({ name }) => name)).size).toBe(ROWS.length)
    for (const { use, load, name, source } of ROWS) {
      expect(source.length, name).toBeGreaterThan(8)
      if (use.role === 'excluded') expect(use.why.length, name).toBeGreaterThan(20)
      else expect(load, name).not.toBeNull()
    }
  })

  test('a trace under given costs is what the step loop does with them', () => {
    const row = rowNamed('Qwen3-32B H100 vLLM ShareGPT burst')
    const prepared = prepare(row)
    if (prepared === null || row.load === null) throw new Error('no load')
    const { bandwidthBytesPerSecond, memoryBytes, bf16Flops, fp8Flops, name } = row.gpu
    const machine = rehearsal({
      gpuName: name,
      architecture: prepared.input.shape,
      bandwidthBytesPerSecond,
      memoryBytes,
      bf16Flops,
      fp8Flops,
    })
    // The costs that a rehearsal uses, not those of the calibration.
    const cost = costOf({ tensor: 1, pipeline: 1 }, machine, prepared.input.kvBytesPerToken)
    const done = play(engineOf(row, cost), row.load)
    const tokens = done.reduce((sum, one) => sum + one.produced, 0)
    const lastMs = Math.max(...done.map(({ endedMs }) => endedMs))
    const { figures } = simulate(prepared, FITTED)
    expect((tokens / lastMs) * 1000).toBeCloseTo(figures?.outputPerSecond ?? 0, 3)
  })

  test('GPUs are those of gpu-profiles', () => {
    const figure = z.object({ value: z.number() })
    const profile = z.object({
      names: z.array(z.string()),
      memoryBytes: figure,
      bandwidthBytesPerSecond: figure,
      bf16Flops: figure,
      fp8Flops: figure.optional(),
    })
    const files = { h20: 'h20-96g', h100: 'h100-80g', h200: 'h200-141g', a100: 'a100-80g' } as const
    for (const key of ['h20', 'h100', 'h200', 'a100'] as const) {
      const text = readFileSync(`${import.meta.dirname}/../../../gpu-profiles/${files[key]}.yaml`)
      const read = profile.parse(parse(text.toString()))
      const gpu = GPUS[key]
      expect(read.names).toContain(gpu.name)
      expect(read.memoryBytes.value).toBe(gpu.memoryBytes)
      expect(read.bandwidthBytesPerSecond.value).toBe(gpu.bandwidthBytesPerSecond)
      expect(read.bf16Flops.value).toBe(gpu.bf16Flops)
      expect(read.fp8Flops?.value ?? gpu.bf16Flops).toBe(gpu.fp8Flops)
    }
  })
})
