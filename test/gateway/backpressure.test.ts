/** A client that stops reading: the engine is held back, memory stays bounded, and it ends. */
import { connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { chunk, completion, DONE, JSON_TYPE, SSE, type Step } from '../support/engine.ts'
import { chatBody, closeAll, closeLater, KEY, startWorld, until } from '../support/gateway.ts'

afterEach(closeAll)

const PIECE = chunk('x'.repeat(60_000))
const PIECES = 2_000
/** What two sockets and the buffers between them hold on Linux, and then some; of 120 MB. */
const HELD_MAX = 24 * 1024 * 1024

const asking = async (url: string, body: string): Promise<Socket> => {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => {})
  socket.pause()
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  closeLater({
    close: async () => {
      socket.destroy()
    },
  })
  return socket
}

test('a stream: the engine stops sending, and is cut off when the client is dropped', async () => {
  let sent = 0
  const world = await startWorld(
    () => {
      const steps: Step[] = Array.from({ length: PIECES }, () => ({
        get send() {
          sent += PIECE.length
          return PIECE
        },
      }))
      return { headers: SSE, steps: [...steps, { send: DONE }] }
    },
    { route: { stallTimeoutMs: 1_500 } },
  )
  await asking(world.url, chatBody({ stream: true }))
  await until('the client is dropped', () => world.finished.length === 1)
  expect(world.finished[0]).toMatchObject({
    outcome: 'client_gone',
    reason: 'client_stalled',
    status: 499,
  })
  await until('the engine is cut off', () => world.engine.aborted === 1)
  expect(sent).toBeGreaterThan(PIECE.length)
  expect(sent).toBeLessThan(HELD_MAX)
  expect(world.handle.totalInFlight()).toBe(0)
})

test('an answer too large to be held: the same', async () => {
  const piece = 'x'.repeat(1024 * 1024)
  let sent = 0
  const world = await startWorld(
    () => ({
      headers: JSON_TYPE,
      steps: Array.from({ length: 200 }, () => ({
        get send() {
          sent += piece.length
          return piece
        },
      })),
    }),
    { route: { stallTimeoutMs: 1_500 } },
  )
  await asking(world.url, chatBody())
  await until('the client is dropped', () => world.finished.length === 1)
  expect(world.finished[0]).toMatchObject({ outcome: 'client_gone', reason: 'client_stalled' })
  await until('the engine is cut off', () => world.engine.aborted === 1)
  expect(sent).toBeLessThan(2 * HELD_MAX)
})

test('one that reads slowly is not dropped', async () => {
  const large = completion('y'.repeat(4_000_000))
  const world = await startWorld(() => ({ headers: JSON_TYPE, steps: [{ send: large }] }), {
    route: { stallTimeoutMs: 500 },
  })
  const socket = await asking(world.url, chatBody())
  let got = 0
  socket.on('data', (data) => {
    got += data.length
    socket.pause()
  })
  const timer = setInterval(() => socket.resume(), 10)
  await until('all of it', () => got > large.length)
  clearInterval(timer)
  await until('the report', () => world.finished.length === 1)
  expect(world.finished[0]).toMatchObject({ outcome: 'ok' })
})

test('nor one that takes long over what is left when all was sent', async () => {
  // As much as is held until its end: the gateway has sent all of it before any is read.
  const large = completion('y'.repeat(12_000_000))
  const world = await startWorld(() => ({ headers: JSON_TYPE, steps: [{ send: large }] }), {
    route: { stallTimeoutMs: 1_500 },
  })
  const socket = await asking(world.url, chatBody())
  await until('the report', () => world.finished.length === 1)
  const endedAtMs = performance.now()
  let got = 0
  socket.on('data', (data) => {
    got += data.length
    socket.pause()
  })
  const timer = setInterval(() => socket.resume(), 25)
  await until('all of it', () => got > large.length)
  clearInterval(timer)
  // Else it says nothing: twice what a client may be silent for.
  expect(performance.now() - endedAtMs).toBeGreaterThan(3_000)
})
