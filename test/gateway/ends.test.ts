/** Ends in a hurry: what ran is cut off and reported, with the tokens that it had by then. */
import { afterEach, expect, test } from 'vitest'
import { chunk, SSE } from '../support/engine.ts'
import {
  chatBody,
  closeAll,
  post,
  routeOf,
  snapshotOf,
  startWorld,
  targetOf,
  until,
} from '../support/gateway.ts'

afterEach(closeAll)

/** A chunk of vLLM with `continuous_usage_stats`. */
const counted = (text: string, tokens: number): string =>
  chunk(text).replace(
    /\}\n\n$/,
    `,"usage":{"prompt_tokens":9,"total_tokens":${9 + tokens},"completion_tokens":${tokens}}}\n\n`,
  )

const STREAM = chatBody({ stream: true })
const hanging = () => ({
  headers: SSE,
  steps: [{ send: counted('a', 1) }, { send: counted('b', 2) }, { hang: true as const }],
})

const begun = async () => {
  const world = await startWorld(hanging, { threads: 1 })
  const response = await post(world.url, STREAM)
  const reader = response.body?.getReader()
  const decoder = new TextDecoder()
  let text = ''
  const read = async (): Promise<boolean> => {
    const piece = await reader?.read().catch(() => null)
    if (piece?.value !== undefined) text += decoder.decode(piece.value, { stream: true })
    return piece?.done === false
  }
  while (!text.includes('"b"')) expect(await read()).toBe(true)
  const rest = async (): Promise<string> => {
    while (await read());
    return text
  }
  return { world, rest }
}

test('a close during a drain ends it now: the client is told, and the request reported', async () => {
  const { world, rest } = await begun()
  const drained = world.handle.drain(3_600_000)
  await world.handle.close()
  await drained
  expect(await rest()).toContain('"code":"server_draining"')
  expect(world.finished).toMatchObject([
    { outcome: 'interrupted', promptTokens: 9, completionTokens: 2 },
  ])
})

test('a thread that dies of a bug leaves its books, and another takes its place', async () => {
  const { world, rest } = await begun()
  const good = snapshotOf([routeOf([targetOf(world.engine.url)])])
  // Keys that are none: the thread runs into a TypeError. JSON.parse has the type that fits.
  world.handle.publish(JSON.parse(JSON.stringify({ ...good, keys: null })))
  await until('the report', () => world.finished.length === 1)
  expect(world.finished).toMatchObject([
    { outcome: 'interrupted', promptTokens: 9, completionTokens: 2 },
  ])
  expect(await rest()).not.toContain('[DONE]')
  await until('the end', () => world.lines.some((line) => line.includes('crashed')))
  world.handle.publish(good)
  await until('another thread', () => world.lines.some((line) => line.includes('serves again')))
  expect(world.finished.length).toBe(1)
})
