/** A directory of its own for each test that asks, gone afterwards. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export const temporaryDirectory = (): string => {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-test-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}
