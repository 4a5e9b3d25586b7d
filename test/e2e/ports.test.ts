/** A first start whose port is taken leaves nothing behind that only a first start shows. */
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { openStore } from '../../src/store/store.ts'
import { newPlace, type Place, verb } from '../support/penstock.ts'

const open: (() => unknown)[] = []

afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close()
})

const take = (port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve())
    open.push(() => new Promise((closed) => server.close(closed)))
  })

const ports: readonly ['gateway' | 'console', (place: Place) => number][] = [
  ['gateway', ({ gatewayPort }) => gatewayPort],
  ['console', ({ consolePort }) => consolePort],
]

test.each(ports)('the port of the %s is taken: said, and no key is made yet', async (_, of) => {
  const place = await newPlace()
  open.push(() => place.remove())
  await take(of(place))
  const { code, output } = await verb(place, 'up')
  expect(code).toBe(1)
  expect(output).toMatch(new RegExp(`\\b${of(place)}( on 127\\.0\\.0\\.1)? is taken: `))
  expect(existsSync(join(place.home, 'admin.key'))).toBe(false)
  const store = await openStore({ home: place.home })
  open.push(() => store.close())
  expect(store.keys()).toEqual([])
})
