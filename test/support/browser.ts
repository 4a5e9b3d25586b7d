/** Debian's Chromium, and the console's page built into a directory of its own. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'
import { build } from 'vite'
import { requirePart } from './parts.ts'

const CHROMIUM = '/usr/bin/chromium'

export const hasChromium = (): boolean => requirePart('chromium', existsSync(CHROMIUM))

/** A fresh profile each time; nothing that would call home. */
export const startBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })

export type BuiltPage = { readonly directory: string; remove(): void }

export const buildPage = async (): Promise<BuiltPage> => {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-page-'))
  await build({ logLevel: 'error', build: { outDir: directory, emptyOutDir: true } })
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) }
}
