import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI, { APIError } from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT_DIRECTORY } from '../../src/cli/places.ts'
import { VERSION } from '../../src/cli/version.ts'
import { buildSimulatorImage } from '../../src/drivers/simulator-image.ts'
import { LAB, type Lab, labInventory, startLab } from '../support/docker-lab.ts'
import { hasProgram, requirePart } from '../support/parts.ts'
import { newPlace, type Place, penstock, type Running, until, verb } from '../support/penstock.ts'
import { nodeSpec } from '../support/rank.ts'

const docker = requirePart('dockerd', hasProgram('dockerd'))

/** Names and ids of the running containers, over all engines. */
const containers = async (lab: Lab): Promise<Record<string, string>> => {
  const found: [string, string][] = []
  for (const { docker: engine } of lab.engines) {
    for (const { Names, Id } of await engine.listContainers()) found.push([Names[0] ?? '', Id])
  }
  return Object.fromEntries(found.sort())
}

type Chat = { text: string; error: unknown; finished: boolean }

describe.runIf(docker)('three Docker engines, 1 + 2 nodes', { timeout: 300_000 }, () => {
  let lab: Lab
  let place: Place
  let serve: Running
  let key = ''

  const start = async (): Promise<void> => {
    serve = penstock(place, ['serve'])
    await serve.says(/endpoint http/)
  }

  const client = (): OpenAI =>
    new OpenAI({ apiKey: key, baseURL: `http://127.0.0.1:${place.gatewayPort}/v1`, maxRetries: 0 })

  const chat = async (model: string, tokens: number, begun?: () => void): Promise<Chat> => {
    const answer: Chat = { text: '', error: null, finished: false }
    try {
      const stream = await client().chat.completions.create({
        model,
        stream: true,
        max_tokens: tokens,
        messages: [{ role: 'user', content: 'Tell me everything about water power.' }],
      })
      for await (const chunk of stream) {
        answer.text += JSON.stringify(chunk.choices[0]?.delta ?? '')
        if (answer.text.length > 100) begun?.()
        answer.finished ||= chunk.choices[0]?.finish_reason !== null
      }
    } catch (error) {
      answer.error = error
    }
    return answer
  }

  const ready = (pattern: RegExp) =>
    until(async () => {
      const { output } = await verb(place, 'status')
      return pattern.test(output) ? output : null
    }, `${pattern}`)

  beforeAll(async () => {
    lab = await startLab(mkdtempSync(join(tmpdir(), 'penstock-lab-')))
    await buildSimulatorImage({
      root: ROOT_DIRECTORY,
      version: VERSION,
      nodes: LAB.map(({ name, address }) =>
        nodeSpec(name, { address, docker: `tcp://${address}:2375` }),
      ),
      signal: AbortSignal.timeout(240_000),
    })
    place = await newPlace({ PENSTOCK_REHEARSAL_SPEED: '20' })
    const inventory = join(place.home, 'inventory.yaml')
    writeFileSync(inventory, labInventory())
    place = { ...place, environment: { ...place.environment, PENSTOCK_INVENTORY: inventory } }
    await start()
    key = (await serve.says(/consumer key \(shown once\): (\S+)/))[1] ?? ''
  }, 300_000)

  afterAll(async () => {
    if (serve !== undefined) {
      serve.signal('SIGKILL')
      await serve.ended()
    }
    await lab?.stop()
    place?.remove()
  }, 120_000)

  it('apply brings up three containers, R1 as one group of two ranks', async () => {
    const { code, output } = await verb(place, 'apply')
    expect(output).toMatch(/2 ready/)
    expect(code).toBe(0)
    expect(Object.keys(await containers(lab))).toEqual([
      '/penstock-deepseek-r1-0-0',
      '/penstock-deepseek-r1-0-1',
      '/penstock-qwq-32b-0-0',
    ])
    for (const model of ['deepseek-r1', 'qwq-32b']) {
      const answer = await chat(model, 20)
      expect(answer).toMatchObject({ error: null, finished: true })
    }
  })

  it('docker kill of the second rank: the group is back, QwQ never interrupted', async () => {
    const before = await containers(lab)
    const endless = chat('qwq-32b', 4000)
    let begun = (): void => undefined
    const flowing = new Promise<void>((resolve) => {
      begun = resolve
    })
    const cut = chat('deepseek-r1', 4000, () => begun())
    await flowing
    await lab.engines[2]?.docker.getContainer('penstock-deepseek-r1-0-1').kill()
    const broken = await cut
    expect(broken.error).toBeInstanceOf(APIError)
    expect(broken.finished).toBe(false)
    await ready(/deepseek-r1\/0\s+ready/)
    expect(await endless).toMatchObject({ error: null, finished: true })
    expect(await chat('deepseek-r1', 10)).toMatchObject({ error: null, finished: true })
    const after = await containers(lab)
    expect(after['/penstock-qwq-32b-0-0']).toBe(before['/penstock-qwq-32b-0-0'])
    for (const rank of ['/penstock-deepseek-r1-0-0', '/penstock-deepseek-r1-0-1']) {
      expect(after[rank]).toBeDefined()
      expect(after[rank]).not.toBe(before[rank])
    }
  })

  it('kill -9 of Penstock and restart: the same containers serve again', async () => {
    const before = await containers(lab)
    serve.signal('SIGKILL')
    await serve.ended()
    await start()
    const answer = await until(async () => {
      const tried = await chat('deepseek-r1', 10)
      return tried.error === null ? tried : null
    }, 'an answer after the restart')
    expect(answer.finished).toBe(true)
    expect(await chat('qwq-32b', 10)).toMatchObject({ error: null })
    expect(await containers(lab)).toEqual(before)
  })

  it('logs, restart and destroy work on whole groups', async () => {
    const logs = await verb(place, 'logs', 'deepseek-r1', '--rank', '1', '--lines', '5')
    expect(logs.code).toBe(0)
    expect(logs.output.trim().split('\n').length).toBeGreaterThan(1)
    const before = await containers(lab)
    expect((await verb(place, 'restart', 'deepseek-r1/0')).code).toBe(0)
    await until(async () => {
      const now = await containers(lab)
      const fresh = ['/penstock-deepseek-r1-0-0', '/penstock-deepseek-r1-0-1'].every(
        (name) => now[name] !== undefined && now[name] !== before[name],
      )
      return fresh ? now : null
    }, 'both ranks restarted')
    await ready(/deepseek-r1\/0\s+ready/)
    expect((await verb(place, 'destroy', '--all')).code).toBe(0)
    await until(async () => {
      const left = Object.keys(await containers(lab))
      return left.length === 0 ? left : null
    }, 'nothing left')
  })
})
