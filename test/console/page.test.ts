import type { Browser, BrowserContext, Locator, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { FleetView } from '../../src/core/view.ts'
import { ADMIN_KEY, CONSUMER_KEY } from '../support/admin.ts'
import { type BuiltPage, buildPage, hasChromium, startBrowser } from '../support/browser.ts'
import { type TestConsole, testConsole } from '../support/console.ts'
import {
  deployment,
  fleet,
  gpu,
  history,
  node,
  rank,
  replica,
  request,
  requests,
} from '../support/fleet.ts'

let browser: Browser
let built: BuiltPage
let at: TestConsole
let context: BrowserContext
let page: Page
/** What the browser complained about: content security, scripts, missing files. */
let complaints: string[]

const nowMs = Date.now()

/** What is read in an element, spaces as one. */
const words = async (place: Locator): Promise<string> =>
  (await place.allInnerTexts()).join(' ').replaceAll(/\s+/g, ' ')

/** The lines to copy in a figure, exactly. */
const lines = async (figure: Locator): Promise<string> =>
  (await figure.locator('pre').allInnerTexts()).join('')

describe.skipIf(!hasChromium())('the page', () => {
  beforeAll(async () => {
    built = await buildPage()
    browser = await startBrowser()
  })

  afterAll(async () => {
    await browser.close()
    built.remove()
  })

  beforeEach(async () => {
    at = await testConsole({ assets: built.directory })
    at.admin.view = fleet(nowMs)
    context = await browser.newContext({ viewport: { width: 1280, height: 900 } })
    page = await context.newPage()
    complaints = []
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
    })
    page.on('pageerror', (error) => complaints.push(String(error)))
    page.on('dialog', (dialog) => complaints.push(`dialog: ${dialog.message()}`))
    page.setDefaultTimeout(20_000)
  })

  afterEach(async () => {
    await context.close()
    await at.console.close()
    expect(complaints).toEqual([])
    expect(at.errors).toEqual([])
  })

  const open = async (): Promise<void> => {
    await page.goto(at.base)
    await page.getByLabel('Admin key').fill(ADMIN_KEY)
    await page.getByRole('button', { name: 'Open the console' }).click()
    await page.getByRole('heading', { name: /^Deployments/ }).waitFor()
  }

  const shows = (text: string | RegExp): Promise<void> => page.getByText(text).first().waitFor()

  const change = (changes: Partial<FleetView>): void => {
    at.admin.change({ ...at.admin.view, ...changes })
  }

  test('asks for the admin key, says why one is refused, keeps it for the tab alone', async () => {
    await page.goto(at.base)
    const field = page.getByLabel('Admin key')
    await field.fill('sk-ps-nobody')
    await field.press('Enter')
    await page.getByRole('alert').getByText('this key is unknown or revoked').waitFor()
    await field.fill(CONSUMER_KEY)
    await field.press('Enter')
    await page.getByRole('alert').getByText('this is a consumer key').waitFor()
    // The browser notes each refusal; nothing else may be noted.
    expect(complaints.splice(0).filter((text) => !/status of 40[13]/.test(text))).toEqual([])
    await field.fill(ADMIN_KEY)
    await field.press('Enter')
    await page.getByRole('heading', { name: /^Nodes/ }).waitFor()
    expect(await context.cookies()).toEqual([])
    expect(await page.evaluate('localStorage.length')).toBe(0)
    await page.reload()
    await page.getByRole('heading', { name: /^Nodes/ }).waitFor()
    await page.getByRole('button', { name: 'Forget key' }).click()
    await field.waitFor()
    expect(await page.evaluate('sessionStorage.length')).toBe(0)
  })

  test('shows nodes with their GPUs, deployments with their ranks, and the numbers', async () => {
    at.admin.recent = requests(nowMs, 6)
    at.admin.series = history(nowMs)
    await open()
    for (const name of ['h20-1', 'h20-8a', 'h20-8b']) {
      await page.getByRole('heading', { name, exact: false }).waitFor()
    }
    const eight = page.getByRole('table', { name: 'GPUs of h20-8a' })
    expect(await eight.getByRole('row').count()).toBe(1 + 8)
    expect(await words(eight.getByRole('row').nth(1))).toMatch(
      /0\s+90 %\s+88\.4 \/ 95\.6\s+381 W\s+58 °C\s+deepseek-r1\/0\s+\d/,
    )
    const ranks = page.getByRole('table', { name: 'Ranks of deepseek-r1/0' })
    expect(await ranks.getByRole('row').count()).toBe(1 + 2)
    expect(await words(ranks)).toMatch(/1\s+h20-8b\s+0–7\s+running\s+ready/)
    const r1 = page.getByLabel('replica deepseek-r1/0')
    expect(await words(r1)).toMatch(/91 %\s*of 518\.4K tokens/)
    expect(await words(r1)).toContain('1 restart')
    const charts = page.getByRole('img', { name: /^KV cache use: deepseek-r1\/0 91 %/ })
    await charts.waitFor()
    const drawn = await page.evaluate(
      `[...document.querySelectorAll('canvas')].map((canvas) => canvas.getContext('2d')
        .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0))`,
    )
    expect(drawn).toEqual([true, true, true])
    const rows = page.getByRole('region', { name: /^Last requests, newest/ }).getByRole('row')
    expect(await rows.count()).toBe(1 + 6)
    expect(await words(rows.nth(4))).toMatch(/429\s+refused: rate_limit_exceeded\s+–\s+–\s+–/)
    expect(await page.getByText('Rehearsal').count()).toBe(0)
  })

  test('what changes is shown without a reload, requests as they end', async () => {
    await open()
    await shows('No request has ended yet')
    const down = replica('qwq-32b/0', {
      state: 'starting',
      reason: 'rank 0 is loading weights',
      ranks: [rank(0, 'h20-1', { gpus: [0], phase: 'weights', phaseRatio: 0.62 })],
    })
    change({ deployments: [deployment('qwq-32b', { replicas: [down] })] })
    await shows('loading weights, 62 %')
    await shows('0 of 1 ready')
    expect(await page.getByLabel('replica deepseek-r1/0').count()).toBe(0)
    at.admin.finish(request('first', nowMs, { modelServed: 'qwq-32b', modelAsked: 'deepseek-r1' }))
    await shows('qwq-32b/0 (qwq-32b)')
    at.admin.finish(request('second', nowMs, { consumer: 'newcomer' }))
    await shows('newcomer')
    const rows = page.getByRole('region', { name: /^Last requests, newest/ }).getByRole('row')
    expect(await rows.count()).toBe(3)
    expect(await words(rows.nth(1))).toContain('newcomer')
  })

  test('unknown is a dash with its reason, never a zero', async () => {
    const blind = gpu(0, {
      utilizationRatio: null,
      memoryUsedBytes: null,
      powerWatts: null,
      temperatureCelsius: null,
    })
    const away = { reachable: false, reason: 'connection refused by 10.0.0.21:2376', gpus: [] }
    const silent = replica('qwq-32b/0', {
      signals: { kvCacheUsageRatio: { value: 0.5, ageMs: 60_000 } },
      generationTokensPerSecond: null,
      promptTokensPerSecond: null,
      ranks: [
        rank(0, 'h20-1', { state: 'exited', exitCode: 137, phase: null, error: 'OOM killed' }),
      ],
    })
    change({
      nodes: [node('h20-1', { gpus: [blind] }), node('h20-8a', away)],
      deployments: [deployment('qwq-32b', { replicas: [silent] })],
    })
    await open()
    const gpus = page.getByRole('table', { name: 'GPUs of h20-1' })
    const row = await words(gpus.getByRole('row').nth(1))
    expect(row.match(/– unknown: the driver did not say/g)?.length).toBe(4)
    expect(row).not.toMatch(/\b0 (%|W|°C)/)
    await shows('connection refused by 10.0.0.21:2376')
    const kv = page.getByLabel('replica qwq-32b/0')
    await kv
      .getByText(/last read \d+ s ago/)
      .first()
      .waitFor()
    const text = await words(kv)
    expect(text).not.toContain('50 %')
    expect(text).toContain('exited, code 137')
    expect(text).toContain('OOM killed')
  })

  test('a lost line is said with its time, old data greyed, and it comes back by itself', async () => {
    await open()
    const port = at.console.port
    await at.console.close()
    await page
      .getByRole('status')
      .getByText(/^Connection lost since \d\d:\d\d:\d\d$/)
      .waitFor()
    await page.locator('main.stale').waitFor()
    await shows('not connected')
    at = await testConsole({ assets: built.directory, port })
    at.admin.view = fleet(nowMs, { version: '0.2.0-after-restart' })
    await shows('0.2.0-after-restart')
    await page.locator('main:not(.stale)').waitFor()
    expect(await page.getByText('Connection lost').count()).toBe(0)
    expect(complaints.splice(0).filter((text) => !/net::ERR_/.test(text))).toEqual([])
  })

  test('a key that is revoked while the page is open leads back to the door', async () => {
    await open()
    at.admin.roles.delete(ADMIN_KEY)
    change({ generation: 8 })
    await page.getByRole('alert').getByText('unknown or revoked').waitFor()
    complaints = complaints.filter((text) => !text.includes('status of 401'))
  })

  test('hostile names and reasons are text everywhere', async () => {
    const evil = `"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'$(id)\``
    const bad = replica(evil, { reason: evil, endpoint: `javascript:window.pwned=1//${evil}` })
    const hostile = {
      ...bad,
      ranks: [rank(0, evil, { container: evil, error: evil })],
    }
    change({
      version: evil,
      nodes: [node(evil, { address: evil, reason: evil, reachable: false, profile: evil })],
      deployments: [
        deployment(evil, { engine: evil, weights: evil, refusals: [evil], replicas: [hostile] }),
      ],
      routes: [{ model: evil, to: evil }],
    })
    at.admin.recent = [
      request(evil, nowMs, { modelAsked: evil, replica: evil, reason: evil, consumer: evil }),
    ]
    at.admin.series = [
      { name: 'kvCacheUsageRatio', labels: { replica: evil }, points: [[nowMs, 0.5]] },
    ]
    await open()
    await page.getByRole('img', { name: `KV cache use: ${evil}` }).waitFor()
    expect(await page.getByText(evil).count()).toBeGreaterThanOrEqual(10)
    expect(await page.locator('img, [onerror], a[href^="javascript:"]').count()).toBe(0)
    expect(await page.locator('script').count()).toBe(1)
    expect(await page.evaluate('window.pwned')).toBe(undefined)
  })

  test('says rehearsal when the fleet or one node is rehearsed', async () => {
    await open()
    expect(await page.getByText('Rehearsal').count()).toBe(0)
    change({ nodes: [node('h20-1', { rehearsal: true }), node('h20-2')] })
    await page.locator('header').getByText('Rehearsal').waitFor()
    expect(await page.locator('article').getByText('Rehearsal').count()).toBe(1)
    change({ nodes: [node('h20-1')], rehearsal: true })
    await page.locator('article').getByText('Rehearsal').waitFor({ state: 'detached' })
    await page.locator('header').getByText('Rehearsal').waitFor()
  })

  test('manifests that are broken, or wait for an apply, are said at the top', async () => {
    const config = { broken: true, reloads: 0, failures: 1, reloadedAtMs: null }
    await open()
    change({ config: { ...config, problem: 'gateway.yaml:5:5: routes[0].limitz: no such key' } })
    await page.getByText('Manifests are broken').waitFor()
    await page.getByText('gateway.yaml:5:5').waitFor()
    change({ config: { ...config, broken: false, problem: 'qwq-32b changed' } })
    await page.getByText('Manifests wait').waitFor()
    change({ config: { ...config, broken: false, problem: null } })
    await page.getByText('Manifests wait').waitFor({ state: 'detached' })
  })

  test('the lines to copy carry the real endpoint and model, and are what is copied', async () => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write'])
    const limits = { overflows: 0, redis: null }
    change({ gateway: { url: 'http://0.0.0.0:9080/', threads: 1, inFlight: 0, limits } })
    await open()
    const curl = page.locator('figure', { hasText: 'curl' }).first()
    expect(await lines(curl)).toContain("curl -N 'http://127.0.0.1:9080/v1/chat/completions'")
    await page.getByLabel('Model').selectOption('qwq-32b')
    const python = page.locator('figure', { hasText: 'Python' })
    await python.getByText('model="qwq-32b"').waitFor()
    await python.getByRole('button', { name: /Copy/ }).click()
    await python.getByText('Copied').waitFor()
    const copied = await page.evaluate('navigator.clipboard.readText()')
    expect(copied).toBe(await lines(python))
    expect(copied).toContain('api_key=os.environ["PENSTOCK_KEY"]')
    expect(await lines(curl)).toContain('$PENSTOCK_KEY')
  })

  test('an empty fleet says what to type next', async () => {
    change({ nodes: [], deployments: [], routes: [] })
    await open()
    expect(await page.locator('.empty', { hasText: 'make deploy-models' }).count()).toBe(3)
    await shows('Curves begin once an engine is ready')
  })

  test('many GPUs and long names fit a phone and a wall', async () => {
    const long = 'a-name-as-long-as-names-may-be-forty-ch1'
    const eight = { gpuCount: 8, gpus: Array.from({ length: 8 }, (_, index) => gpu(index)) }
    const nodes = [node(long, eight), node(`${long.slice(0, -1)}2`, eight), node('h20-1')]
    change({
      nodes: [...nodes, ...Array.from({ length: 60 }, (_, index) => node(`n${index}`))],
      deployments: [
        deployment(long, {
          weights: 'An-Organisation-With-A-Long-Name/A-Model-With-A-Long-Name-Instruct-FP8',
          replicas: [replica(`${long}/12`, { ranks: [rank(0, long), rank(1, long)] })],
        }),
      ],
    })
    await open()
    for (const width of [400, 768, 1280, 2560]) {
      await page.setViewportSize({ width, height: 900 })
      const wide = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
      expect(wide, `${width} px`).toBeLessThanOrEqual(0)
    }
    expect(await page.locator('article table.gpus').count()).toBe(24)
    await page.getByRole('button', { name: 'Show all 63 nodes' }).click()
    await page.getByRole('heading', { name: 'n59' }).waitFor()
  })
})
