import fc from 'fast-check'
import { expect, test } from 'vitest'
import { GPU_FIELDS, GPU_QUERY, parseGpuLine } from '../../src/core/gpu.ts'

const UUID = 'GPU-5f4d1b0e-1c9b-4f8e-9a51-0c1d2e3f4a5b'

test('one H20, as nvidia-smi prints it', () => {
  expect(parseGpuLine(`0, ${UUID}, 37, 90112, 97871, 345.21, 61, NVIDIA H20\r\n`)).toEqual({
    kind: 'reading',
    reading: {
      index: 0,
      uuid: UUID,
      name: 'NVIDIA H20',
      utilizationRatio: 0.37,
      memoryUsedBytes: 90112 * 1024 * 1024,
      memoryTotalBytes: 97871 * 1024 * 1024,
      powerWatts: 345.21,
      temperatureCelsius: 61,
    },
  })
})

test('an idle GPU is zero, not unknown', () => {
  expect(parseGpuLine(`7, ${UUID}, 0, 0, 97871, 0.00, 0, NVIDIA H20`)).toMatchObject({
    reading: { utilizationRatio: 0, memoryUsedBytes: 0, powerWatts: 0, temperatureCelsius: 0 },
  })
})

test.each([
  '[N/A]',
  'N/A',
  '[Not Supported]',
  '[Not Found]',
  '[Unknown Error]',
  '[GPU is lost]',
  '[GPU requires reset]',
  '[Insufficient Permissions]',
  '',
  'ERR!',
  '1e5',
  '-4000',
  '4000000000000',
])('%s is unknown, never zero', (word) => {
  const line = `3, ${UUID}, ${word}, ${word}, ${word}, ${word}, ${word}, NVIDIA H20`
  expect(parseGpuLine(line)).toMatchObject({
    kind: 'reading',
    reading: {
      index: 3,
      utilizationRatio: null,
      memoryUsedBytes: null,
      memoryTotalBytes: null,
      powerWatts: null,
      temperatureCelsius: null,
    },
  })
})

test('a GPU that fell off the bus still is a reading, of nothing', () => {
  const lost = Array.from({ length: 8 }, () => '[GPU is lost]').join(', ')
  expect(parseGpuLine(lost)).toMatchObject({
    kind: 'reading',
    reading: { index: null, name: null },
  })
})

test('names with commas keep them', () => {
  expect(parseGpuLine(`0, ${UUID}, 1, 1, 1, 1, 1, ACME, Inc. X1,Y`)).toMatchObject({
    reading: { name: 'ACME, Inc. X1,Y' },
  })
})

test.each([
  ['', null],
  [' \r\n', null],
  ['No devices were found', { kind: 'none' }],
  ['No devices found.', { kind: 'failure', message: 'No devices found.' }],
  [
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    {
      kind: 'failure',
      message: "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    },
  ],
  [
    'Failed to initialize NVML: Driver/library version mismatch',
    { kind: 'failure', message: 'Failed to initialize NVML: Driver/library version mismatch' },
  ],
  ['Reboot a, b, c, d, e, f, g, h', { kind: 'failure', message: 'Reboot a, b, c, d, e, f, g, h' }],
  [`0, ${UUID}, 37, 901`, { kind: 'failure', message: `0, ${UUID}, 37, 901` }],
  ['x'.repeat(9999), { kind: 'failure', message: 'x'.repeat(300) }],
])('%j is %j', (line, expected) => {
  expect(parseGpuLine(line)).toEqual(expected)
})

test('the query names each field once, the one with commas last', () => {
  expect(new Set(GPU_FIELDS).size).toBe(GPU_FIELDS.length)
  expect(GPU_QUERY).toMatch(/^index,uuid,.*,name$/)
})

test('what nvidia-smi can print is read back', () => {
  const mib = fc.nat(1_000_000)
  const word = fc.stringMatching(/^[A-Za-z0-9]([A-Za-z0-9 ,.-]{0,30}[A-Za-z0-9])?$/)
  fc.assert(
    fc.property(
      fc.nat(63),
      fc.nat(100),
      mib,
      fc.nat(100_000),
      word.filter((name) => name !== 'N/A'),
      (index, percent, used, centiwatts, name) => {
        const watts = (centiwatts / 100).toFixed(2)
        const line = [index, UUID, percent, used, used, watts, 40, name].join(', ')
        expect(parseGpuLine(line)).toEqual({
          kind: 'reading',
          reading: {
            index,
            uuid: UUID,
            name,
            utilizationRatio: percent / 100,
            memoryUsedBytes: used * 1024 * 1024,
            memoryTotalBytes: used * 1024 * 1024,
            powerWatts: centiwatts / 100,
            temperatureCelsius: 40,
          },
        })
      },
    ),
  )
})

test('no line makes it throw, and no figure leaves its bounds', () => {
  const part = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.double().map(String),
    fc.integer().map(String),
  )
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
      const read = parseGpuLine(parts.join(', '))
      if (read?.kind !== 'reading') return
      const { utilizationRatio, memoryUsedBytes } = read.reading
      expect(utilizationRatio ?? 0).toBeLessThanOrEqual(1)
      expect(utilizationRatio ?? 0).toBeGreaterThanOrEqual(0)
      expect(memoryUsedBytes ?? 0).toBeGreaterThanOrEqual(0)
    }),
    { numRuns: 1000 },
  )
})
