import { defineConfig } from 'vitest/config'

/** These start real Docker engines on fixed loopback addresses, so they go one after the other. */
const REAL = ['test/e2e/**/*.test.ts', 'test/drivers/docker*.test.ts']

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // A shared machine stalls for seconds; a second run is printed as `(retry x1)`, never silent.
    retry: process.env.CI === 'true' ? 1 : 0,
    projects: [
      {
        extends: true,
        test: {
          name: 'parts',
          include: ['test/**/*.test.ts'],
          exclude: REAL,
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: 'real', include: REAL, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
})
